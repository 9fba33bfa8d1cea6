// Package client asks a running ublk-loop serve for devices.
//
//	c := client.New(client.DefaultSocket)
//	held, err := c.Attach(ctx, client.AddRequest{File: path}, client.Files{File: file})
//	mount held.Device.Device …
//	held.Close() // the device goes with its last user
//
// A device with a lease belongs to a connection. The server removes the device when two
// things are true: the connection has ended, by the client or with it, and the device is
// not in use. Attach also keeps the device open, so that its number cannot become
// another device's before the caller mounts it.
//
// The types mirror the protocol (docs/serve.md, docs/json.md). They are independent of
// package loop, so that a client need not link it.
package client
