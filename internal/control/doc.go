// Package control is the server side of the protocol of package client: HTTP with JSON
// over a unix socket. curl can speak it. A client can pass descriptors as ancillary data,
// so that the server does not have to find the client's files. The package also keeps
// leases and serves metrics. It converts between the types of the protocol and those of
// package loop, and opens no device itself.
//
// docs/serve.md describes the requests, and routes.go lists them.
//
// An error is a client.ErrorReply. Its status is 400 for an invalid request, 403 for a
// client that is neither root nor the server's user, 404 for an unknown device, 409 for a
// device in use or a taken id, 413 for a body of more than maxBody bytes, 501 for what the
// kernel cannot do, and 500 for other errors.
//
// The answer to an upgrade ends with the connection, when the old program has ended. If
// the upgrade fails, a client.ErrorReply follows on a second line.
//
// A device with a lease belongs to its connection: the answer to POST does not end while
// the lease lasts. When the client has closed the connection, the server removes the
// device as soon as it is not in use. keep makes the device stay, for ever or for a time.
package control
