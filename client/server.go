package client

// ServerStatus is the status of the server itself.
type ServerStatus struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Generation is the number of upgrades in the life of the process.
	Generation int `json:"generation"`
	Devices    int `json:"devices"`
}
