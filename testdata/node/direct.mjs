// Microsoft's device and service SDKs straight against the hub stand-in: no
// gateway between. It keeps the stand-in honest: what it gets wrong, real clients
// notice here. Exits 0 if all is as the real hub has it, else 1 with the reason.
//
//   node direct.mjs DEVICE-CONNECTION SERVICE-CONNECTION HTTPS-PORT CONTROL-URL CA-FILE mqtt|ws
//
// NODE_EXTRA_CA_CERTS must name CA-FILE too: REST and WebSocket read nothing else.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import device from 'azure-iot-device';
import mqtt from 'azure-iot-device-mqtt';
import service from 'azure-iothub';

const [connection, owner, httpsPort, control, caFile, transport] = process.argv.slice(2);
const deviceId = /DeviceId=([^;]+)/.exec(connection)[1];

const client = device.Client.fromConnectionString(connection, transport === 'ws' ? mqtt.MqttWs : mqtt.Mqtt);
const registry = service.Registry.fromConnectionString(owner);
const methods = service.Client.fromConnectionString(owner);
for (const c of [registry, methods]) {
  // The SDK has no word for a port; this is where its REST client looks.
  const agent = new Agent({ keepAlive: false });
  agent.defaultPort = Number(httpsPort);
  c._restApiClient.setOptions({ http: { agent } });
}

const steps = [];
const step = (name, run) => steps.push({ name, run });
const within = (promise, what, ms = 10_000) => Promise.race([
  promise,
  new Promise((_, no) => setTimeout(() => no(new Error(`${what}: not within ${ms} ms`)), ms).unref()),
]);
const received = async () => (await (await fetch(`${control}/sim/messages`)).text()).trim().split('\n').filter(Boolean).map(JSON.parse);

// Handlers before open: a message that waits comes right after it.
const letters = [];
let letterCame;
client.on('message', (m) => { letters.push(m); letterCame?.(); });

step('open', async () => {
  await fetch(`${control}/sim/c2d/${deviceId}?props=k%3Dearly`, { method: 'POST', body: 'early' });
  await client.setOptions({ ca: readFileSync(caFile, 'utf8') });
  await client.open();
});

step('a message that waited', async () => {
  if (letters.length === 0) await within(new Promise((ok) => { letterCame = ok; }), 'message');
  const [m] = letters;
  assert.equal(m.getData().toString(), 'early');
  assert.equal(m.properties.getItem(0).value, 'early');
  await client.complete(m);
});

step('telemetry', async () => {
  const m = new device.Message('{"t":21.5}');
  m.messageId = 'm 1';
  m.correlationId = 'c/1';
  m.contentType = 'application/json';
  m.contentEncoding = 'utf-8';
  m.properties.add('a b', 'x/y&z');
  m.properties.add('empty', '');
  await client.sendEvent(m);
  const last = (await received()).at(-1);
  assert.equal(last.device, deviceId);
  assert.deepEqual(last.json, { t: 21.5 });
  assert.equal(last.qos, 1);
  assert.deepEqual(last.props, { '$.mid': 'm 1', '$.cid': 'c/1', '$.ct': 'application/json', '$.ce': 'utf-8', 'a b': 'x/y&z', empty: '' });
});

step('many at once', async () => {
  const before = (await received()).length;
  await Promise.all(Array.from({ length: 500 }, (_, i) => client.sendEvent(new device.Message(JSON.stringify({ i })))));
  const got = (await received()).slice(before).map((m) => m.json.i);
  assert.deepEqual(got, Array.from({ length: 500 }, (_, i) => i));
});

step('a message to the device', async () => {
  const came = new Promise((ok) => { letterCame = ok; });
  const answered = fetch(`${control}/sim/c2d/${deviceId}?wait=10s&props=%2524.mid%3D7%26k%3Dv`, { method: 'POST', body: 'now' });
  await within(came, 'message');
  const m = letters.at(-1);
  assert.equal(m.getData().toString(), 'now');
  assert.equal(m.messageId, '7');
  await client.complete(m);
  assert.equal((await answered).status, 200, 'acknowledged');
});

let twin;
step('twin', async () => {
  twin = await client.getTwin();
  assert.equal(twin.properties.desired.$version, 1);
  await new Promise((ok, no) => twin.properties.reported.update({ fw: '1.2', big: 9007199254740991 }, (e) => (e ? no(e) : ok())));
  const seen = (await registry.getTwin(deviceId)).responseBody;
  assert.equal(seen.properties.reported.fw, '1.2');
  assert.equal(seen.properties.reported.big, 9007199254740991);
  const refused = await new Promise((ok) => twin.properties.reported.update({ 'a.b': 1 }, ok));
  assert.match(String(refused), /a\.b/, 'a bad patch is an error');
});

step('desired', async () => {
  const versions = [];
  const came = new Promise((ok) => twin.on('properties.desired', (d) => { versions.push(d); if (d.rate === 5) ok(); }));
  await new Promise((ok) => setTimeout(ok, 200)); // the SDK subscribes in its own time and does not say when
  await registry.updateTwin(deviceId, { properties: { desired: { rate: 5 } } }, '*');
  await within(came, `desired, got ${JSON.stringify(versions)}`);
  assert.equal(twin.properties.desired.rate, 5);
});

step('method', async () => {
  client.onDeviceMethod('reboot', (request, response) => {
    response.send(207, { in: request.payload.delay * 2 }, () => {});
  });
  const result = await within(invokeUntilHeard({ methodName: 'reboot', payload: { delay: 3 }, responseTimeoutInSeconds: 10 }), 'method');
  assert.equal(result.status, 207);
  assert.deepEqual(result.payload, { in: 6 });
});

// The SDK subscribes to methods in its own time and does not say when.
async function invokeUntilHeard(request) {
  for (;;) {
    try {
      return (await methods.invokeDeviceMethod(deviceId, request)).result;
    } catch (e) {
      if (!/404103/.test(e.responseBody ?? e.message)) throw e;
      await new Promise((ok) => setTimeout(ok, 50));
    }
  }
}

step('registry', async () => {
  const created = (await registry.create({ deviceId: 'made-here', status: 'enabled' })).responseBody;
  assert.ok(created.authentication.symmetricKey.primaryKey && created.etag && created.generationId);
  await assert.rejects(registry.create({ deviceId: 'made-here' }), { name: 'DeviceAlreadyExistsError' });
  const ids = (await registry.list()).responseBody.map((d) => d.deviceId);
  assert.ok(ids.includes('made-here') && ids.includes(deviceId), `list has ${ids}`);
  const disabled = (await registry.update({ deviceId: 'made-here', status: 'disabled' })).responseBody;
  assert.equal(disabled.status, 'disabled');
  assert.equal(disabled.authentication.symmetricKey.primaryKey, created.authentication.symmetricKey.primaryKey);
  await registry.addModule({ deviceId: 'made-here', moduleId: 'm1', managedBy: 'me' });
  assert.equal((await registry.getModule('made-here', 'm1')).responseBody.managedBy, 'me');
  assert.deepEqual((await registry.getModulesOnDevice('made-here')).responseBody.map((m) => m.moduleId), ['m1']);
  const bulk = (await registry.addDevices([{ deviceId: 'b1' }, { deviceId: 'b2' }])).responseBody;
  assert.equal(bulk.isSuccessful, true);
  await registry.removeDevices([{ deviceId: 'b1' }, { deviceId: 'b2' }], true);
  assert.ok((await registry.getRegistryStatistics()).responseBody.totalDeviceCount >= 2);
  await registry.delete('made-here');
  await assert.rejects(registry.get('made-here'), { name: 'DeviceNotFoundError' });
});

step('a disabled device is put out', async () => {
  const gone = new Promise((ok) => client.on('disconnect', ok));
  client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => -1 });
  await registry.update({ deviceId, status: 'disabled' });
  await within(gone, 'disconnect');
  const again = device.Client.fromConnectionString(connection, mqtt.Mqtt);
  await again.setOptions({ ca: readFileSync(caFile, 'utf8') });
  if (transport !== 'ws') await assert.rejects(again.open(), { name: 'UnauthorizedError' });
});

for (const { name, run } of steps) {
  try {
    await within(run(), name, 30_000);
    console.log(`ok ${name}`);
  } catch (e) {
    console.error(`not ok ${name}: ${e.stack ?? e}${e.responseBody ? `\n${e.responseBody}` : ''}`);
    process.exit(1);
  }
}
process.exit(0);
