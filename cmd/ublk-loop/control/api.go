package control

import (
	"fmt"

	"github.com/ublk-loop/ublk-loop/loop"
)

// DefaultSocket is where clients look for a server.
const DefaultSocket = "/run/ublk-loop/control.sock"

// AddRequest asks for a device.
type AddRequest struct {
	// File is the absolute path of the file or disk. The server looks it up
	// from its own root, as of its start, unless it comes as a descriptor.
	File   string      `json:"file"`
	Config loop.Config `json:"config"`
	// Lease ties the device to the connection.
	Lease bool `json:"lease"`
	// Descriptors says what comes with the request's first byte, in order:
	// "file" is the file, opened with O_PATH; "key" is read to its end for the
	// transfer's key. Others and more than MaxDescriptors are refused.
	Descriptors []string `json:"descriptors,omitempty"`
}

// MaxDescriptors is how many descriptors may come with a request.
const MaxDescriptors = 2

// What a descriptor is for.
const (
	fileDescriptor = "file"
	keyDescriptor  = "key"
)

// ServerStatus is what a server says of itself.
type ServerStatus struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Generation is how many upgrades there were in the life of the process.
	Generation int `json:"generation"`
	Devices    int `json:"devices"`
}

// ErrorReply says why a request has failed.
type ErrorReply struct {
	Message string `json:"error"`
	Hint    string `json:"hint,omitempty"`
}

// maxBody is the largest body of a request, in bytes: a path and little more.
const maxBody = 64 << 10

// maxKey is the longest key of a transfer, in bytes.
const maxKey = 512

func devicePath(id uint32) string { return fmt.Sprintf("/v1/devices/%d", id) }
