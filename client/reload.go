package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
)

// Reload gives a device other tables that show the same data, such as after layers below its store
// were merged. The device keeps the store that it writes to. files are the files and disks of the
// tables, in the order of the text, opened with O_PATH; their names are absolute paths. Reload
// returns the device. When it returns, the server has closed the files that the tables do not have.
//
// If device.Table is not empty, and the device has got other tables since, Reload returns an error that wraps ESTALE. So a request
// that a server carries out late, after its client has given up and has made another one, changes nothing.
func (c *Client) Reload(ctx context.Context, device *Device, table string, files []*os.File) (*Device, error) {
	req := AddRequest{Table: table}
	sent := (&Files{Table: files}).describe(&req)
	r, err := newRequest(ctx, http.MethodPost, device.path("/reload", device.query()), req)
	if err != nil {
		return nil, err
	}
	if device.Table != "" {
		r.Header.Set("If-Match", device.TableTag())
	}
	resp, err := c.carryOut(r, sent)
	if err != nil {
		return nil, err
	}
	reloaded := new(Device)
	err = readAnswer(json.NewDecoder(resp.Body), reloaded)
	return reloaded, errors.Join(err, resp.Body.Close())
}

// TableTag returns the value of the HTTP header If-Match that stands for the tables of the device. A wrong byte in a name counts as
// U+FFFD, which JSON has for it.
func (d *Device) TableTag() string {
	return fmt.Sprintf("\"%x\"", sha256.Sum256([]byte(string([]rune(d.Table)))))
}
