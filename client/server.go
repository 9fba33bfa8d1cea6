package client

// ServerStatus is the status of the server itself.
type ServerStatus struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Generation is the number of upgrades in the life of the process.
	Generation int `json:"generation"`
	Devices    int `json:"devices"`
	// Unrecovered are the devices that the server could not take over from the server
	// before it, and that still wait for a server.
	Unrecovered []Unrecovered `json:"unrecovered"`
}

// Unrecovered is a device that waits for a server.
type Unrecovered struct {
	ID     uint32 `json:"id"`
	Device string `json:"device"` // /dev/ublkbN
	Error  string `json:"error"`  // why the server could not take it over
}
