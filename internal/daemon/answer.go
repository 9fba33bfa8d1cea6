package daemon

import "github.com/ublk-loop/ublk-loop/client"

// answer is what a server in the background says once, as a line of JSON: what its device
// is, or why there is none.
type answer struct {
	Device *client.Device `json:"status,omitempty"`
	Error  string         `json:"error,omitempty"`
	Hint   string         `json:"hint,omitempty"`
}

// stay is what a server hears after its answer. Without it the server ends with the
// process that started it, because the control descriptor is closed.
const stay = "stay\n"
