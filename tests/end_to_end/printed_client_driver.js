// Run the printed JavaScript client: calls come as JSON lines, events go out as such.
'use strict';

const fs = require('fs');
const readline = require('readline');

const [path, baseUrl, apiKey, apiSecret] = process.argv.slice(2);
const METHODS = { connect: 'connect', subscribe: 'subscribe', submit_order: 'submitOrder' };
const TYPES = ['trade', 'orderbook', 'orderbook_update', 'order_update', 'user_trade'];

// The client's own words go to stderr: stdout is ours.
console.log = console.error;

function tell(event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

const printed = fs.readFileSync(path, 'utf8').split('// Usage example')[0];
const TradingPlatformClient =
  new Function('require', `${printed}\nreturn TradingPlatformClient;`)(require);

class Client extends TradingPlatformClient {
  async authenticate(endpoint) {
    try {
      const response = await super.authenticate(endpoint);
      tell('authenticated', { endpoint, response });
      return response;
    } catch (error) {
      tell('refused', { endpoint, message: error.message });
      throw error;
    }
  }
}

const client = new Client(apiKey, apiSecret, { baseUrl });
client.connections = new Proxy({}, {
  set(sockets, endpoint, socket) {
    sockets[endpoint] = socket;
    tell('connected', { endpoint });
    return true;
  },
});
for (const type of TYPES) {
  client.onMessage(type, (message) => tell('message', { message }));
}

const lines = readline.createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const { method, args } = JSON.parse(line);
  try {
    const result = await client[METHODS[method]](...args);
    tell('returned', { method, result: method === 'connect' ? null : result });
  } catch (error) {
    tell('raised', { method, message: error.message });
  }
});
lines.on('close', () => process.exit(0));
