const WebSocket = require('ws');
const crypto = require('crypto');

class TradingPlatformClient {
  constructor(apiKey, apiSecret, options = {}) {
    this.apiKey = apiKey;
    this.apiSecret = apiSecret;
    this.options = {
      baseUrl: 'wss://api.tradingplatform.example.com',
      reconnect: true,
      maxReconnectAttempts: 10,
      reconnectInterval: 1000,
      ...options
    };
    
    this.connections = {};
    this.subscriptions = {};
    this.messageHandlers = {};
    this.reconnectAttempts = {};
  }
  
  connect(endpoint) {
    if (this.connections[endpoint]) {
      return Promise.resolve(this.connections[endpoint]);
    }
    
    const url = `${this.options.baseUrl}${endpoint}`;
    this.reconnectAttempts[endpoint] = 0;
    
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      
      socket.onopen = () => {
        console.log(`Connected to ${url}`);
        this.connections[endpoint] = socket;
        
        if (endpoint !== '/ws/market-data') {
          this.authenticate(endpoint)
            .then(() => resolve(socket))
            .catch(reject);
        } else {
          resolve(socket);
        }
      };
      
      socket.onmessage = (event) => {
        const message = JSON.parse(event.data);
        
        if (message.type === 'heartbeat') {
          this.handleHeartbeat(endpoint);
        } else if (message.type === 'error') {
          console.error('Error:', message.data);
        } else if (this.messageHandlers[message.type]) {
          this.messageHandlers[message.type](message);
        }
      };
      
      socket.onerror = (error) => {
        console.error(`WebSocket error on ${endpoint}:`, error);
      };
      
      socket.onclose = (event) => {
        console.log(`Connection closed for ${endpoint}:`, event.code, event.reason);
        delete this.connections[endpoint];
        
        if (this.options.reconnect && this.reconnectAttempts[endpoint] < this.options.maxReconnectAttempts) {
          this.reconnectAttempts[endpoint]++;
          const delay = this.options.reconnectInterval * Math.pow(2, this.reconnectAttempts[endpoint] - 1);
          console.log(`Reconnecting to ${endpoint} in ${delay}ms (attempt ${this.reconnectAttempts[endpoint]})`);
          
          setTimeout(() => {
            this.connect(endpoint)
              .then(() => {
                // Resubscribe to channels
                if (this.subscriptions[endpoint]) {
                  this.subscribe(endpoint, this.subscriptions[endpoint]);
                }
              })
              .catch((err) => console.error(`Reconnection to ${endpoint} failed:`, err));
          }, delay);
        }
      };
    });
  }
  
  authenticate(endpoint) {
    const timestamp = Date.now();
    const signature = this.generateSignature(timestamp);
    
    const authMessage = {
      action: 'authenticate',
      data: {
        api_key: this.apiKey,
        signature: signature,
        timestamp: timestamp
      },
      id: `auth-${timestamp}`
    };
    
    return this.sendMessage(endpoint, authMessage)
      .then((response) => {
        if (response.data.status === 'success') {
          console.log(`Authentication successful for ${endpoint}`);
          return response;
        } else {
          throw new Error(`Authentication failed: ${response.data.message}`);
        }
      });
  }
  
  generateSignature(timestamp) {
    const message = this.apiKey + timestamp;
    return crypto.createHmac('sha256', this.apiSecret).update(message).digest('hex');
  }
  
  sendMessage(endpoint, message) {
    return new Promise((resolve, reject) => {
      if (!this.connections[endpoint]) {
        return reject(new Error(`No connection for ${endpoint}`));
      }
      
      const messageId = message.id || `msg-${Date.now()}`;
      message.id = messageId;
      
      const responseHandler = (event) => {
        const response = JSON.parse(event.data);
        if (response.id === messageId) {
          this.connections[endpoint].removeEventListener('message', responseHandler);
          resolve(response);
        }
      };
      
      this.connections[endpoint].addEventListener('message', responseHandler);
      this.connections[endpoint].send(JSON.stringify(message));
      
      // Set timeout for response
      setTimeout(() => {
        this.connections[endpoint].removeEventListener('message', responseHandler);
        reject(new Error(`Timeout waiting for response to ${message.action}`));
      }, 10000);
    });
  }
  
  subscribe(endpoint, channels) {
    if (!Array.isArray(channels)) {
      channels = [channels];
    }
    
    this.subscriptions[endpoint] = [...new Set([...(this.subscriptions[endpoint] || []), ...channels])];
    
    const subscribeMessage = {
      action: 'subscribe',
      data: {
        channels: channels
      },
      id: `sub-${Date.now()}`
    };
    
    return this.sendMessage(endpoint, subscribeMessage);
  }
  
  unsubscribe(endpoint, channels) {
    if (!Array.isArray(channels)) {
      channels = [channels];
    }
    
    if (this.subscriptions[endpoint]) {
      this.subscriptions[endpoint] = this.subscriptions[endpoint].filter(channel => !channels.includes(channel));
    }
    
    const unsubscribeMessage = {
      action: 'unsubscribe',
      data: {
        channels: channels
      },
      id: `unsub-${Date.now()}`
    };
    
    return this.sendMessage(endpoint, unsubscribeMessage);
  }
  
  handleHeartbeat(endpoint) {
    const pongMessage = {
      action: 'pong',
      data: {
        timestamp: Date.now()
      }
    };
    
    if (this.connections[endpoint]) {
      this.connections[endpoint].send(JSON.stringify(pongMessage));
    }
  }
  
  onMessage(type, handler) {
    this.messageHandlers[type] = handler;
  }
  
  submitOrder(order) {
    const orderMessage = {
      action: 'submit_order',
      data: order,
      id: `order-${Date.now()}`
    };
    
    return this.sendMessage('/ws/trading', orderMessage);
  }
  
  cancelOrder(orderId) {
    const cancelMessage = {
      action: 'cancel_order',
      data: {
        order_id: orderId
      },
      id: `cancel-${Date.now()}`
    };
    
    return this.sendMessage('/ws/trading', cancelMessage);
  }
  
  close() {
    Object.keys(this.connections).forEach(endpoint => {
      if (this.connections[endpoint]) {
        this.connections[endpoint].close();
      }
    });
  }
}

// Usage example
async function main() {
  const client = new TradingPlatformClient('your-api-key', 'your-api-secret');
  
  // Set up message handlers
  client.onMessage('trade', (message) => {
    console.log('Trade:', message.data);
  });
  
  client.onMessage('orderbook', (message) => {
    console.log('Order Book:', message.data);
  });
  
  client.onMessage('order_update', (message) => {
    console.log('Order Update:', message.data);
  });
  
  // Connect to market data endpoint
  await client.connect('/ws/market-data');
  
  // Subscribe to market data channels
  await client.subscribe('/ws/market-data', ['trades:AAPL', 'orderbook:AAPL:10']);
  
  // Connect to trading endpoint
  await client.connect('/ws/trading');
  
  // Subscribe to trading channels
  await client.subscribe('/ws/trading', ['user_orders', 'user_trades']);
  
  // Submit an order
  const orderResult = await client.submitOrder({
    symbol: 'AAPL',
    side: 'buy',
    type: 'limit',
    quantity: 100,
    price: 150.00,
    time_in_force: 'gtc'
  });
  
  console.log('Order Result:', orderResult);
  
  // Keep the process running
  process.on('SIGINT', () => {
    console.log('Closing connections');
    client.close();
    process.exit();
  });
}

main().catch(console.error);
