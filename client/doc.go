// Package client is for programs that have devices made by a running ublk-loop serve.
//
//	c := client.New(client.DefaultSocket)
//	held, err := c.Attach(ctx, client.AddRequest{File: path}, client.Files{File: file})
//	mount held.Device.Device …
//	held.Close() // the device goes with its last user
//
// A device that was added with a lease belongs to the connection: it goes as soon as
// the client has closed that, or has ended, and nobody uses the device. Attach keeps
// the device open besides, so that its number cannot become another device's before it
// is mounted.
//
// The types are the protocol's (docs/serve.md, docs/json.md). They are not those of
// package loop, which a client does without.
package client
