// Package iothub is the upstream to Azure IoT Hub.
package iothub
