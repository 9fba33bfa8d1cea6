package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/driver"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// serve answers the calls of CSI until the context is done.
func serve(ctx context.Context, o *options) (err error) {
	if err := o.parseSizes(); err != nil {
		return err
	}
	path, err := socketPath(o.endpoint)
	if err != nil {
		return err
	}
	log := newLogger(os.Stderr)
	o.driver.Report = log.failed
	p, err := pool.Open(o.pool)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	d, err := driver.New(p, o.driver)
	if err != nil {
		return usage(err)
	}
	defer d.Close()
	if err := d.Reconcile(ctx); err != nil {
		log.failed(fmt.Errorf("the driver is not ready yet: %w", err)) // each call tries again
	}
	l, err := listen(path)
	if err != nil {
		return err
	}
	var m metrics
	stop, err := m.serve(o.metrics, d, log.failed)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer stop()
	return answer(ctx, d, l, log, &m)
}

// socketPath returns the path of an endpoint (spec.md, "Configured by CSI_ENDPOINT").
func socketPath(endpoint string) (string, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(endpoint, "unix:"), "//")
	if !strings.HasPrefix(path, "/") {
		return "", usage(fmt.Errorf("--endpoint %q: not the path of a unix socket", endpoint))
	}
	return path, nil
}

// answer answers calls until the context is done. Before it returns, it finishes the calls
// that have arrived, except long copies.
func answer(ctx context.Context, d *driver.Driver, l net.Listener, log *logger, m *metrics) error {
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(m.count, log.calls))
	d.Register(server)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // the code below waits for it, if it runs
		d.Stop()
		server.GracefulStop()
		close(stopped)
	})
	log.info("serving at " + l.Addr().String())
	err := server.Serve(l)
	if stop() {
		return errors.Join(err, l.Close())
	}
	<-stopped
	return err
}

// listen listens at path. It replaces the socket of a process that was killed; the lock of
// the pool keeps out a second driver.
func listen(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if c, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, unix.EADDRINUSE), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}
