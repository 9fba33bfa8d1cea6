package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/report"
)

// freezeTimeout bounds how long an upgrade waits for devices that are being added
// or removed. Meanwhile nobody else is served, nor the service manager told that
// the server is alive.
const freezeTimeout = 5 * time.Second

// upgradeTimeout bounds how long a new server may take to answer.
const upgradeTimeout = time.Minute

func newUpgradeCommand(a *app) *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have the program of serve, as it is now, take the running one's place",
		Long: "Have the program of serve, as it is now, take the running one's place: in the same\n" +
			"process, with the same devices, whose I/O waits for that.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runUpgrade(cmd.Context(), socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", client.DefaultSocket, "the server's socket is at `PATH`")
	return cmd
}

// runUpgrade asks a server to make place, and waits for the next.
func (a *app) runUpgrade(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	c := client.New(socket)
	if err := c.Upgrade(ctx); err != nil {
		return report.Name(err, "upgrade", "the server")
	}
	now, err := c.Status(ctx)
	if err != nil {
		return fmt.Errorf("upgrade the server: ask the new one: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "version %s, process %d, %d devices\n", now.Version, now.PID, now.Devices)
	return err
}

// askUpgrade has another program take this one's place. It returns only if that
// can't be.
func (s *manyServer) askUpgrade() error {
	failed := make(chan error, 1)
	select {
	case s.upgrade <- failed:
		return <-failed
	case <-s.ending:
		return errors.New("the server is about to end")
	}
}

// status is what the server says of itself.
func (s *manyServer) status() client.ServerStatus {
	return client.ServerStatus{
		Version: moduleVersion(), PID: os.Getpid(), Generation: s.job.Generation, Devices: s.devices.Len(),
	}
}

// replace executes the program of serve in this one's place. It returns only if
// that can't be, with nothing changed.
//
// The kernel ends the queues with this program's threads, as it does when a
// process is killed: that is better tried, in all kernels, than to end the
// queues first, over which Linux 6.12 may lose a request for good.
func (s *manyServer) replace() error {
	program, err := s.openProgram()
	if err != nil {
		return err
	}
	defer func() { _ = program.Close() }()
	if err := s.api.Freeze(freezeTimeout); err != nil {
		return &hint.Error{Err: err, Hint: "try again; if something hangs, the log says what"}
	}
	defer s.api.Thaw()
	if err := s.devices.CanEnd(); err != nil {
		return err
	}
	next := *s.job
	next.Generation++
	next.Warnings = nil
	if next.holders, err = s.api.Holders(); err != nil {
		return fmt.Errorf("keep leases: %w", err)
	}
	next.files = s.devices.Files()
	s.log.info("ending", logged("why", "upgrade"))
	s.alive() // the next has as long as this one had
	err = next.execute(fmt.Sprintf("/proc/self/fd/%d", program.Fd()))
	next.closeDevices()
	return err
}

// openProgram opens the program that serve was started as, as it is now.
func (s *manyServer) openProgram() (*os.File, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	fd, err := unix.Openat2(int(s.job.root.Fd()), s.job.Program, &how)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.job.Program, err)
	}
	return os.NewFile(uintptr(fd), s.job.Program), nil
}
