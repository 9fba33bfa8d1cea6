package client

import (
	"context"
	"encoding/json"
	"net/http"
)

// Fork makes a device go on over a new store, which exists and is empty, and freezes its old
// one. With other, which is another empty store or "", a second device starts from the same
// point. The paths are absolute, and the server looks them up in its root directory. Fork
// returns the devices.
func (c *Client) Fork(ctx context.Context, device *Device, store, other string) ([]Device, error) {
	query := device.query()
	query.Set("store", store)
	if other != "" {
		query.Set("other", other)
	}
	resp, err := c.send(ctx, http.MethodPost, device.path("/fork", query), nil, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var devices []Device
	return devices, json.NewDecoder(resp.Body).Decode(&devices)
}
