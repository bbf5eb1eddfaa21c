const axios = require('axios');

const BASE_URL = 'https://sandbox-api.m2pprepaid.com';

async function getAccessToken() {
  const response = await axios.post(`${BASE_URL}/auth/token`, {
    clientId: process.env.M2P_CLIENT_ID,
    clientSecret: process.env.M2P_CLIENT_SECRET,
    grantType: 'client_credentials'
  });
  return response.data.access_token;
}

async function fetchProducts(token) {
  const response = await axios.get(`${BASE_URL}/v1/products/`, {
    headers: {
      'Authorization': `Bearer ${token}`,
      'X-TENANT-ID': process.env.M2P_TENANT_ID,
      'Content-Type': 'application/json'
    }
  });
  return response.data;
}
