// Package mqtt is the bridge for downstream devices: an embedded MQTT broker.
package mqtt
