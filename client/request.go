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
	File string `json:"file"`
	// Table is the text of device-mapper tables (docs/tables.md), for a device of tables. It
	// contains no key. File is empty then, and the server looks up the paths in the text,
	// unless the request has descriptors for them.
	Table string `json:"table,omitempty"`
	// Files are the absolute paths of the descriptors for a Table.
	Files []TableFile `json:"files,omitempty"`
	// RandomKeys lets the server make the keys of all lines with the target crypt. They exist
	// only in its memory, so the device ends with the server, and an upgrade of the server is
	// refused. A request with RandomKeys has no descriptor for a key.
	RandomKeys bool   `json:"random_keys,omitempty"`
	Config     Config `json:"config"`
	// Lease ties the device to the connection.
	Lease bool `json:"lease"`
	// Descriptors says what the descriptors are that come with the request's first byte,
	// in order. "file" is the file, opened with O_PATH. There is one for each of Files, in the
	// order of the text. "key" is a file that the server reads to its end for the key of the
	// transfer, or for those of all lines with the target crypt, one after another. The server
	// refuses others, and more than MaxDescriptors.
	Descriptors []string `json:"descriptors,omitempty"`
}

// TableFile is a file or disk below the tables of an AddRequest.
type TableFile struct {
	File string `json:"file"` // absolute path
}

// MaxDescriptors is the maximum number of descriptors in a request: 100 files, and the key.
const MaxDescriptors = 101

// These are the purposes of descriptors.
const (
	FileDescriptor      = "file"
	KeyDescriptor       = "key"
	DirectoryDescriptor = "directory" // of NewStore.Directory
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
	File *os.File // opened with O_PATH; nil for a device of tables
	Key  *os.File // the server reads it to its end; nil for none
	// Table are the files and disks of AddRequest.Table in the order of the text, opened with
	// O_PATH. Their names are absolute paths.
	Table []*os.File
}
