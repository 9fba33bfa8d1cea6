package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Merged is the result of Merge.
type Merged struct {
	Chunks uint64 `json:"chunks"` // chunks that were copied
}

// DeviceSocket returns the path of the socket at which the process of a single device listens, if
// the device has a store. It answers only Merge, Fork and Stats.
func DeviceSocket(id uint32) string { return fmt.Sprintf("/run/ublk-loop/%d.sock", id) }

// Merge moves the changes of a device's store into its base while the device is used. If the
// context ends, so does the merge; another one continues.
func (c *Client) Merge(ctx context.Context, device *Device) (merged Merged, err error) {
	resp, err := c.send(ctx, http.MethodPost, device.path("/merge", device.query()), nil, nil)
	if err != nil {
		return merged, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	err = readAnswer(json.NewDecoder(resp.Body), &merged)
	return merged, err
}
