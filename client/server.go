package client

// ServerStatus is what a server says of itself.
type ServerStatus struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Generation is how many upgrades there were in the life of the process.
	Generation int `json:"generation"`
	Devices    int `json:"devices"`
}
