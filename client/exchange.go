package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
)

// exchange sends a request on a connection of its own, and reads the head of the answer. The
// connection ends with the body of the answer, or with the context. http.Transport would do the
// same with three goroutines, whose starts and switches cost a short-lived program more than its request.
func (c *Client) exchange(req *http.Request, files []*os.File) (*http.Response, error) {
	ctx := req.Context()
	conn, err := c.dial(ctx, files)
	if err != nil {
		return nil, causeOr(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	resp, err := readHead(conn, req)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, causeOr(ctx, err)
	}
	resp.Body = &answerBody{ctx: ctx, body: resp.Body, conn: conn, stop: stop}
	return resp, nil
}

// readHead sends a request, and reads the head of the answer. It returns an error with hasEnded if
// the server ends the connection without an answer. A server may answer before it has read a large request, and
// then end the connection, so that the answer counts more than an error of the write.
func readHead(conn net.Conn, req *http.Request) (*http.Response, error) {
	req.Close = true
	writeErr := req.Write(conn)
	answer := bufio.NewReader(conn)
	_, err := answer.Peek(1)
	if err == nil {
		return http.ReadResponse(answer, req)
	}
	return nil, errors.Join(writeErr, err)
}

// answerBody is the body of an answer.
type answerBody struct {
	ctx  context.Context
	body io.Reader
	conn net.Conn
	stop func() bool
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = causeOr(b.ctx, err)
	}
	return n, err
}

// Close implements io.Closer. It ends a Read that waits.
func (b *answerBody) Close() error {
	b.stop()
	_ = b.conn.Close() // fails only if the context has closed it
	return nil
}

// causeOr returns why a context is done, or an error if it is not.
func causeOr(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
