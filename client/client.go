package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Client sends requests to a server. Each request has a connection of its own.
type Client struct {
	socket string
}

// New returns a client of the server that listens at socket.
func New(socket string) *Client { return &Client{socket} }

// Remove removes a device, and returns when the device is completely gone. It returns an
// error with HTTP status 404 if the device has gone already, even if another device has
// its number.
func (c *Client) Remove(ctx context.Context, device *Device, force bool) error {
	query := device.query()
	if force {
		query.Set("force", "true")
	}
	resp, err := c.send(ctx, http.MethodDelete, device.path("", query), nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Devices returns all devices of the server.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	var list []Device
	err := c.get(ctx, "/v1/devices", &list)
	return list, err
}

// Device returns one of the server's devices.
func (c *Client) Device(ctx context.Context, id uint32) (Device, error) {
	var s Device
	err := c.get(ctx, DevicePath(id), &s)
	return s, err
}

// Status returns the status of the server itself.
func (c *Client) Status(ctx context.Context) (ServerStatus, error) {
	var s ServerStatus
	err := c.get(ctx, "/v1/server", &s)
	return s, err
}

// Stats returns the counters of the server's devices.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	var s Stats
	err := c.get(ctx, "/v1/stats", &s)
	return s, err
}

// Keep makes a device stay until it is removed, whatever its lease.
func (c *Client) Keep(ctx context.Context, device *Device) error {
	return c.post(ctx, device.path("/keep", device.query()))
}

// Clear makes a device go when it is no longer in use, or when its lease ends. It returns
// an error with HTTP status 404 if the server does not have the device.
func (c *Client) Clear(ctx context.Context, device *Device) error {
	return c.post(ctx, device.path("/clear", device.query()))
}

func (c *Client) post(ctx context.Context, path string) error {
	resp, err := c.send(ctx, http.MethodPost, path, nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) get(ctx context.Context, path string, v any) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return readAnswer(json.NewDecoder(resp.Body), v)
}

// Upgrade replaces the running server with the installed program. It returns when the
// old program has ended and the new one answers requests.
func (c *Client) Upgrade(ctx context.Context) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/upgrade", nil, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answers := json.NewDecoder(resp.Body)
	var s ServerStatus
	if err := readAnswer(answers, &s); err != nil {
		return err
	}
	var failure ErrorReply
	if answers.Decode(&failure) != nil {
		return ctx.Err() // the connection has ended
	}
	return &ServerError{http.StatusInternalServerError, failure}
}

func readAnswer(d *json.Decoder, v any) error {
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}
