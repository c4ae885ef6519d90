// A device as Microsoft's SDK makes one: sends numbered telemetry, keeps going
// through lost connections with the SDK's own retries, and says on standard
// output what was acknowledged to it, one JSON line each:
//
//   {"opened":ms}  {"acked":0} … {"failed":i,"error":"…"}  {"done":{"sent":n,"acked":n,"failed":n}}
//
// Settings, each as --name=value or as the environment variable in brackets:
//
//   --connection [DEVICE_CONNECTION]  connection string, with GatewayHostName for a gateway
//   --ca         [DEVICE_CA]          PEM file to trust; for ws NODE_EXTRA_CA_CERTS must name it too
//   --count      [DEVICE_COUNT]       messages to send; 10
//   --interval   [DEVICE_INTERVAL]    ms from one to the next; 100. They are sent on time, acknowledged or not.
//   --transport  [DEVICE_TRANSPORT]   mqtt or ws; mqtt
//   --open-for   [DEVICE_OPEN_FOR]    seconds to keep trying the first open; 60
//
// Exits 0 if all were acknowledged, 1 if some were not, 2 on bad settings.
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import device from 'azure-iot-device';
import mqtt from 'azure-iot-device-mqtt';

const names = ['connection', 'ca', 'count', 'interval', 'transport', 'open-for'];
const { values } = parseArgs({ options: Object.fromEntries(names.map((n) => [n, { type: 'string' }])) });
const setting = (name, def) => values[name] ?? process.env[`DEVICE_${name.replace('-', '_').toUpperCase()}`] ?? def;
const connection = setting('connection');
const caFile = setting('ca');
const count = Number(setting('count', 10));
const interval = Number(setting('interval', 100));
const transport = setting('transport', 'mqtt');
const openFor = Number(setting('open-for', 60));
const id = /DeviceId=([^;]+)/.exec(connection ?? '')?.[1];
if (!id || !(count >= 0) || !(interval >= 0) || !(openFor >= 0) || !['mqtt', 'ws'].includes(transport)) {
  console.error('device: want --connection="HostName=…;DeviceId=…;SharedAccessKey=…[;GatewayHostName=…]" and numbers; see the top of device.mjs');
  process.exit(2);
}

const say = (line) => console.log(JSON.stringify(line));
const pause = (ms) => new Promise((ok) => setTimeout(ok, ms));

// A first open that fails is not retried by the SDK, whatever the reason, and a
// client whose open has failed is not opened again: a new one is made.
async function open() {
  const began = Date.now();
  for (;;) {
    const client = device.Client.fromConnectionString(connection, transport === 'ws' ? mqtt.MqttWs : mqtt.Mqtt);
    client.on('error', (e) => console.error(`device ${id}: ${e}`));
    try {
      if (caFile) await client.setOptions({ ca: readFileSync(caFile, 'utf8') });
      await client.open();
      say({ opened: Date.now() - began });
      return client;
    } catch (e) {
      console.error(`device ${id}: open: ${e}`);
      await client.close().catch(() => {});
      if (Date.now() - began > openFor * 1000) throw e;
      await pause(500);
    }
  }
}

const client = await open().catch(() => process.exit(1));
const result = { sent: 0, acked: 0, failed: 0 };
const underWay = [];
const start = Date.now();
for (let i = 0; i < count; i++) {
  await pause(Math.max(0, start + i * interval - Date.now()));
  const m = new device.Message(JSON.stringify({ device: id, n: i }));
  m.messageId = `${id}-${i}`;
  m.contentType = 'application/json';
  m.contentEncoding = 'utf-8';
  result.sent++;
  underWay.push(client.sendEvent(m).then(
    () => { result.acked++; say({ acked: i }); },
    (e) => { result.failed++; say({ failed: i, error: String(e) }); },
  ));
}
await Promise.all(underWay);
say({ done: result });
await Promise.race([client.close().catch(() => {}), pause(2000)]);
process.stdout.write('', () => process.exit(result.acked === count ? 0 : 1));
