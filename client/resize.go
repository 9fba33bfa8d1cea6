package client

import (
	"context"
	"net/http"
	"strconv"
)

// Resize gives a device a new size in bytes while it is in use. The file must have at least
// that size. It returns an error with HTTP status 501 on kernels that cannot resize a device.
func (c *Client) Resize(ctx context.Context, device *Device, size uint64) error {
	query := device.query()
	query.Set("size", strconv.FormatUint(size, 10))
	resp, err := c.send(ctx, http.MethodPost, device.path("/resize", query), nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
