package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
)

// Reload gives a device other tables that show the same data, such as after layers below its store
// were merged. The device keeps the store that it writes to. files are the files and disks of the
// tables, in the order of the text, opened with O_PATH; their names are absolute paths. Reload
// returns the device. When it returns, the server has closed the files that the tables do not have.
func (c *Client) Reload(ctx context.Context, device *Device, table string, files []*os.File) (*Device, error) {
	req := AddRequest{Table: table}
	sent := (&Files{Table: files}).describe(&req)
	resp, err := c.send(ctx, http.MethodPost, device.path("/reload", device.query()), req, sent)
	if err != nil {
		return nil, err
	}
	reloaded := new(Device)
	err = readAnswer(json.NewDecoder(resp.Body), reloaded)
	return reloaded, errors.Join(err, resp.Body.Close())
}
