package client

import (
	"context"
	"net/http"
	"os"
)

// GiveKey gives a device that waits for its key after a restart of the server (Unrecovered)
// the key again. The server reads the file key to its end: the key of the transfer, or those of
// all lines with the target crypt. I/O of the device continues when GiveKey returns nil. It
// returns an error with HTTP status 404 if the device does not wait for a key, and 400 if the
// key is not the device's.
func (c *Client) GiveKey(ctx context.Context, device *Device, key *os.File) error {
	resp, err := c.send(ctx, http.MethodPut, device.path("/key", device.query()), nil, []*os.File{key})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
