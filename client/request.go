package client

import (
	"fmt"
	"net/url"
	"os"
	"strconv"
)

// DefaultSocket is the default path of the server's socket.
const DefaultSocket = "/run/ublk-loop/control.sock"

// AddRequest asks for a device.
type AddRequest struct {
	// File is the absolute path of the file or disk. Unless the request has a descriptor
	// for it, the server looks the path up in the root directory that it had at its
	// start.
	File   string `json:"file"`
	Config Config `json:"config"`
	// Lease ties the device to the connection.
	Lease bool `json:"lease"`
	// Descriptors says what the descriptors are that come with the request's first byte,
	// in order. "file" is the file, opened with O_PATH. "key" is a file that the server
	// reads to its end for the transfer's key. The server refuses others, and more than
	// MaxDescriptors.
	Descriptors []string `json:"descriptors,omitempty"`
}

// MaxDescriptors is the maximum number of descriptors in a request.
const MaxDescriptors = 2

// These are the purposes of descriptors.
const (
	FileDescriptor = "file"
	KeyDescriptor  = "key"
)

// DevicePath returns the path of a device in the protocol.
func DevicePath(id uint32) string { return fmt.Sprintf("/v1/devices/%d", id) }

// query returns the parameters that tell the device from another with its number.
func (d *Device) query() url.Values {
	query := url.Values{}
	if d.DiskSequence != 0 { // servers of earlier versions do not say it
		query.Set("diskseq", strconv.FormatUint(d.DiskSequence, 10))
	}
	return query
}

// path returns the path of a request about the device.
func (d *Device) path(what string, query url.Values) string {
	return (&url.URL{Path: DevicePath(d.ID) + what, RawQuery: query.Encode()}).String()
}

// Files are the open files of an AddRequest.
type Files struct {
	File *os.File // opened with O_PATH
	Key  *os.File // the server reads it to its end; nil for none
}
