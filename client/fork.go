package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
)

// NewStore is a new store for Fork.
type NewStore struct {
	Path string // absolute
	// File is the open store. If it is nil, the server looks the path up in its root directory.
	File *os.File
	// Directory is the open directory of a File that has no name yet (O_TMPFILE in open(2)). The
	// server gives the file its name as its last step before the switch.
	Directory *os.File
}

// Fork makes a device go on over a new store, which is empty, and freezes its old one. With two
// stores, a second device starts from the same point. Fork returns the devices. The process of a
// single device takes only open stores, and does not make the second device.
//
// If Fork returns a ServerError, files without a name have none, unless the device has forked and
// only the second device, or the mark in the old store, could not be made. The files of the device
// tell (Device.Uses).
func (c *Client) Fork(ctx context.Context, device *Device, stores ...NewStore) ([]Device, error) {
	if len(stores) != 1 && len(stores) != 2 {
		return nil, fmt.Errorf("fork with %d stores: %w", len(stores), os.ErrInvalid)
	}
	query := device.query()
	var files []*os.File
	var descriptors []string
	for i, store := range stores {
		query.Set([]string{"store", "other"}[i], store.Path)
		if store.File != nil {
			files, descriptors = append(files, store.File), append(descriptors, FileDescriptor)
		}
		if store.Directory != nil {
			files, descriptors = append(files, store.Directory), append(descriptors, DirectoryDescriptor)
		}
	}
	if len(descriptors) > 0 {
		query.Set("descriptors", strings.Join(descriptors, ","))
	}
	resp, err := c.send(ctx, http.MethodPost, device.path("/fork", query), nil, files)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var devices []Device
	err = readAnswer(json.NewDecoder(resp.Body), &devices)
	return devices, err
}
