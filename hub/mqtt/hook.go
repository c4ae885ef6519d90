package mqtt

import (
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi asks us. By then the gatehouse has judged CONNECT, so only
// the moment after CONNACK and each PUBLISH are left.
type hook struct{ mochi.HookBase }

func (*hook) ID() string { return "holdfast" }

func (*hook) Provides(b byte) bool {
	switch b {
	case mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnSessionEstablished, mochi.OnPublish:
		return true
	}
	return false
}

func (*hook) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (*hook) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (*hook) OnSessionEstablished(cl *mochi.Client, _ packets.Packet) {
	cl.Net.Conn.(*conn).established()
}

// OnPublish always rejects: no acknowledgement and no fan-out by mochi, and the
// connection stays. Any other error it would log, and then acknowledge.
func (*hook) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	cl.Net.Conn.(*conn).publish(pk)
	return pk, packets.ErrRejectPacket
}
