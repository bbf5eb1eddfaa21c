curl -X POST https://sandbox-api.m2pprepaid.com/auth/token \
  -H "Content-Type: application/json" \
  -d '{
    "clientId": "your_client_id",
    "clientSecret": "your_client_secret",
    "grantType": "client_credentials"
  }'
