package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// guest is whom a person may connect as, once the story is told.
type guest struct {
	device, key       string // an IoT Hub device
	account, password string // an MQTT account
}

func newGuest() *guest {
	return &guest{device: "yours", key: newKey(), account: "you", password: "outage"}
}

func (g *guest) registered() string { return g.device + ",parent=" + gatewayID + ",key=" + g.key }

const stayInterval = 2 * time.Second // between messages of a device while a person looks around

// stay keeps everything running, devices sending slowly, until ctx ends.
func (o *outage) stay(ctx context.Context) error {
	o.con.text(o.directions())
	for _, d := range o.devices {
		d.send(1<<30, stayInterval)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err // somebody died
	}
	o.con.say("stopping")
	return nil
}

// directions says how to connect one's own clients.
func (o *outage) directions() string {
	host, port := splitPort(o.gw.mqtt)
	_, secure := splitPort(o.gw.tls)
	g := o.guest
	return fmt.Sprintf(`Everything keeps running until Ctrl-C; status page: http://%[1]s/
What you send appears here as soon as it arrives at the hub.

An ordinary MQTT client (the account's messages under plant/# also go to the cloud):

  mosquitto_sub -h %[2]s -p %[3]s -u %[4]s -P %[5]s -v -t 'plant/#'
  mosquitto_pub -h %[2]s -p %[3]s -u %[4]s -P %[5]s -q 1 -t plant/hello -m 'from my laptop'
  mosquitto_pub -h localhost -p %[6]s --cafile %[7]s -u %[4]s -P %[5]s -q 1 -t plant/hello -m 'with TLS'

Microsoft's Node SDK (npm install azure-iot-device azure-iot-device-mqtt), or any other IoT Hub SDK:

  export NODE_EXTRA_CA_CERTS=%[7]s
  export CONNECTION='HostName=%[8]s;DeviceId=%[9]s;SharedAccessKey=%[10]s;GatewayHostName=localhost:%[6]s'
  node -e 'const c=require("azure-iot-device").Client.fromConnectionString(process.env.CONNECTION,require("azure-iot-device-mqtt").Mqtt);
    c.open().then(()=>c.sendEvent(new (require("azure-iot-device").Message)("from my SDK"))).then(()=>c.close()).then(()=>console.log("acknowledged"))'

`, o.gw.status, host, port, g.account, g.password, secure, o.gw.ca, hubHost, g.device, g.key)
}
