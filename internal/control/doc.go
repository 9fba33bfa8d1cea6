// Package control is the server's side of the protocol that package client speaks: HTTP
// with JSON over a unix socket, which curl can drive, and with descriptors in ancillary
// data, so that the server need not look for a client's files. It also keeps leases and
// answers scrapers of metrics. It converts the protocol's types to package loop's and
// back, and opens no device itself.
//
//	POST   /v1/devices          client.AddRequest -> 201 client.Device
//	GET    /v1/devices                            -> 200 []client.Device
//	GET    /v1/devices/ID                         -> 200 client.Device
//	DELETE /v1/devices/ID[?force=true]            -> 204
//	POST   /v1/devices/ID/keep[?for=10s]          -> 204
//	GET    /v1/server                             -> 200 client.ServerStatus
//	GET    /v1/stats                              -> 200 client.Stats
//	POST   /v1/upgrade                            -> 202 client.ServerStatus
//	GET    /metrics                               -> 200 for Prometheus, as text
//
// An error comes as client.ErrorReply, with 400 for a request that is wrong, 403 for a
// client that is neither root nor the server's user, 404 for a device that the
// server does not have, 409 for one that is in use or an id that is taken, 413
// for a body of more than 64 KiB, 500 for the rest.
//
// The answer to an upgrade ends, by the end of the connection, when the old
// program is no more. A client.ErrorReply on a second line says that it goes on.
//
// A device that was added with a lease belongs to the connection: the answer to
// POST does not end before that. When the client has closed it, the device goes
// as soon as nobody uses it; keep makes it stay instead, for good or for a time.
package control
