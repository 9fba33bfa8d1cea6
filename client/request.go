package client

import (
	"fmt"
	"os"
)

// DefaultSocket is where clients look for a server.
const DefaultSocket = "/run/ublk-loop/control.sock"

// AddRequest asks for a device.
type AddRequest struct {
	// File is the absolute path of the file or disk. The server looks it up
	// from its own root, as of its start, unless it comes as a descriptor.
	File   string `json:"file"`
	Config Config `json:"config"`
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
	FileDescriptor = "file"
	KeyDescriptor  = "key"
)

// DevicePath returns the path of a device in the protocol.
func DevicePath(id uint32) string { return fmt.Sprintf("/v1/devices/%d", id) }

// Files are what goes to the server with an AddRequest.
type Files struct {
	File *os.File // from loop.OpenPath
	Key  *os.File // to be read to its end, nil for none
}
