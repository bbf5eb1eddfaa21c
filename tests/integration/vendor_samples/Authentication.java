import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The vendor's Java sample, with the JDK's HttpClient in place of Spring's RestTemplate. */
public class Authentication {
    static final String baseUrl = "https://sandbox-api.m2pprepaid.com";

    public static void main(String[] args) throws Exception {
        Map<String, String> env = System.getenv();
        HttpClient client = HttpClient.newHttpClient();

        // Get token
        String body = String.format(
            "{\"clientId\": \"%s\", \"clientSecret\": \"%s\", \"grantType\": \"client_credentials\"}",
            env.get("M2P_CLIENT_ID"), env.get("M2P_CLIENT_SECRET"));
        HttpResponse<String> tokenResp = client.send(
            HttpRequest.newBuilder(URI.create(baseUrl + "/auth/token"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build(),
            HttpResponse.BodyHandlers.ofString());
        Matcher token = Pattern.compile("\"access_token\"\\s*:\\s*\"([^\"]+)\"").matcher(tokenResp.body());
        if (!token.find()) {
            throw new IllegalStateException("no token: HTTP " + tokenResp.statusCode());
        }

        // Make API call
        HttpResponse<String> resp = client.send(
            HttpRequest.newBuilder(URI.create(baseUrl + "/v1/products/"))
                .header("Authorization", "Bearer " + token.group(1))
                .header("X-TENANT-ID", env.get("M2P_TENANT_ID"))
                .GET()
                .build(),
            HttpResponse.BodyHandlers.ofString());
        System.out.write(resp.body().getBytes(java.nio.charset.StandardCharsets.UTF_8));
        System.out.flush();
    }
}
