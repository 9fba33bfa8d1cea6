package daemon

import "github.com/ublk-loop/ublk-loop/client"

// requester is who wants the device that a server serves.
type requester interface {
	// Ready says that the device can be used. After an error the server
	// ends: nobody wants the device any more.
	Ready(client.Device) error
	// Failed says why there is no device.
	Failed(answer)
	// Ending says that the device is going.
	Ending()
}
