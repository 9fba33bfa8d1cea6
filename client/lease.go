package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lease is a device that is tied to a connection.
type Lease struct {
	Device Device
	client *Client
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	ended  chan struct{} // closed when the server or Close has ended the lease
}

// Add asks for a device with a lease. The context bounds the request only: the lease
// lasts until Close, or until the server ends it. Add returns an error that wraps
// ErrNoServer if there is no server, and the context's cause if the context is done.
func (c *Client) Add(ctx context.Context, req AddRequest, files Files) (*Lease, error) {
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	lease, err := c.add(lasting, req, files)
	if !stop() && err == nil {
		_ = lease.body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		if lasting.Err() != nil {
			err = context.Cause(lasting)
		}
		cancel(nil)
		return nil, err
	}
	lease.cancel = cancel
	go func() { // until the server or Close ends the lease; Close waits for it
		_, _ = io.Copy(io.Discard, lease.body)
		close(lease.ended)
	}()
	return lease, nil
}

// add returns a lease that lasts as long as the context.
func (c *Client) add(ctx context.Context, req AddRequest, files Files) (*Lease, error) {
	req.Lease = true
	sent := files.describe(&req)
	resp, err := c.send(ctx, http.MethodPost, "/v1/devices", req, sent)
	if hasEnded(err) && files.Key == nil {
		// The server was replaced or crashed before it answered. In both cases a device
		// with a lease does not outlive the connection, so that it is safe to ask again.
		resp, err = c.send(ctx, http.MethodPost, "/v1/devices", req, sent)
	}
	if err != nil {
		return nil, err
	}
	l := &Lease{client: c, body: resp.Body, ended: make(chan struct{})}
	if err := readAnswer(json.NewDecoder(resp.Body), (*newDevice)(&l.Device)); err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	return l, nil
}

// hasEnded reports whether the server has ended the connection without an answer. The kernel tells a client
// whose request the server has not read to its end by ECONNRESET.
func hasEnded(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) }

// describe says in a request what the files are, and returns them in that order.
func (f *Files) describe(req *AddRequest) (sent []*os.File) {
	req.Descriptors, req.Files = nil, nil
	if f.File != nil {
		sent = append(sent, f.File)
	}
	for _, file := range f.Table {
		sent = append(sent, file)
		req.Files = append(req.Files, TableFile{file.Name()})
	}
	for range sent {
		req.Descriptors = append(req.Descriptors, FileDescriptor)
	}
	if f.Key != nil {
		sent = append(sent, f.Key)
		req.Descriptors = append(req.Descriptors, KeyDescriptor)
	}
	return sent
}

// Ended returns a channel that is closed when the lease has ended.
func (l *Lease) Ended() <-chan struct{} { return l.ended }

// Keep makes the device outlive its lease. With a positive d the server removes the
// device after that time, once the device is no longer in use. With 0 it stays until it
// is removed.
func (l *Lease) Keep(ctx context.Context, d time.Duration) error {
	query := l.Device.query()
	if d > 0 {
		query.Set("for", d.String())
	}
	return l.client.post(ctx, l.Device.path("/keep", query))
}

// Close ends the lease. The server then removes the device when it is no longer in use.
func (l *Lease) Close() {
	l.cancel(nil)
	_ = l.body.Close()
	<-l.ended
}
