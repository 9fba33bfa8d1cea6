package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-snapshotter/snapshotter"
	"github.com/ublk-loop/ublk-loop/internal/oci"
	"github.com/ublk-loop/ublk-loop/internal/owndir"
)

// serve answers containerd's requests until the context is done.
func serve(ctx context.Context, o *options) (err error) {
	size, maxSize, err := o.sizes()
	if err != nil {
		return err
	}
	settings, err := oci.ReadSettings(oci.SettingsPath)
	if err != nil {
		return err
	}
	log := newLogger(os.Stderr)
	s, err := snapshotter.New(ctx, snapshotter.Options{Root: o.root, Size: size, MaxSize: maxSize, Settings: settings, Report: log.failed})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	l, err := listen(o.address)
	if err != nil {
		return err
	}
	return answer(ctx, s, l, log)
}

// answer answers requests until the context is done. Before it returns, it finishes the
// requests that have arrived.
func answer(ctx context.Context, s *snapshotter.Snapshotter, l net.Listener, log *logger) error {
	server := grpc.NewServer(grpc.UnaryInterceptor(log.failures))
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(s))
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { // the code below waits for it, if it runs
		server.GracefulStop()
		close(stopped)
	})
	log.info("serving at " + l.Addr().String())
	err := notifyReady(os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		err = server.Serve(l)
	}
	if stop() {
		return errors.Join(err, l.Close())
	}
	<-stopped
	return err
}

// listen listens at path, if no other process does. It replaces the socket of a process
// that was killed.
func listen(path string) (net.Listener, error) {
	if err := owndir.Make(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if c, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("listen at %s: %w", path, unix.EADDRINUSE), c.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// notifyReady tells the service manager, if there is one, that the snapshotter answers
// requests (sd_notify(3)).
func notifyReady(socket string) error {
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("connect to NOTIFY_SOCKET: %w", err)
	}
	_, err = c.Write([]byte("READY=1"))
	return errors.Join(err, c.Close())
}
