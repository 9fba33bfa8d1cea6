package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/newfile"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

func newForkCommand(a *app) *cobra.Command {
	socket := client.DefaultSocket
	cmd := &cobra.Command{
		Use:   "fork DEVICE|ID STORE [OTHER]",
		Short: "Make a device go on over a new store, and another start from the same point",
		Long: "Make a device go on over the new file STORE, and freeze its old store. With the new file OTHER, " +
			"a second device starts from the same point. The paths of the devices are printed.",
		Args: arguments(2, 3, "DEVICE or STORE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, ok := deviceID(args[0])
			if !ok {
				return report.Usage(fmt.Errorf("fork: %s: not a device", args[0]), helpHint(cmd))
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return report.Name(a.runFork(ctx, socket, id, args[1:]), "fork", ublk.BlockPath(id))
		},
	}
	filledVar(cmd.Flags(), &socket, "socket", "`PATH` of the socket of serve")
	return cmd
}

// runFork makes the stores, has the device forked, and prints the devices.
func (a *app) runFork(ctx context.Context, socket string, id uint32, paths []string) error {
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	device, err := drv.Device(id)
	if err != nil {
		return err
	}
	f := forking{app: a, ctx: ctx, device: &device}
	defer f.close()
	err = f.create(paths)
	if err == nil {
		err = f.fork(socket)
	}
	if err != nil {
		return errors.Join(err, f.removeUnused(drv))
	}
	for i := range f.devices {
		fmt.Fprintln(a.out, f.devices[i].Device)
		a.nameIfClosed(&f.devices[i])
	}
	return nil
}

// forking is the state of a fork.
type forking struct {
	app     *app
	ctx     context.Context
	device  *client.Device
	stores  []*newfile.File
	devices []client.Device // the results
	// unsure says that a server was asked and has not answered.
	unsure bool
}

func (f *forking) create(paths []string) error {
	for _, path := range paths {
		store, err := cowfile.CreateAbove(path, f.device.Table)
		if err != nil {
			return err
		}
		f.stores = append(f.stores, store)
	}
	return nil
}

func (f *forking) close() {
	for _, store := range f.stores {
		_ = store.Close()
	}
}

// fork asks the process of the device, or else the server of many devices.
func (f *forking) fork(socket string) error {
	err := f.ask(client.DeviceSocket(f.device.ID))
	if errors.Is(err, client.ErrNoServer) {
		return f.ask(socket)
	}
	if err != nil || len(f.stores) < 2 {
		return err
	}
	if err := f.addOther(); err != nil {
		return fmt.Errorf("it has forked, but no second device was made: %w", err)
	}
	return nil
}

// ask asks the server at a socket. An interrupt does not end the wait for the answer: without the
// answer, the user would not know whether the device uses the stores.
func (f *forking) ask(socket string) (err error) {
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	var stores []client.NewStore
	for _, s := range f.stores {
		stores = append(stores, client.NewStore{Path: s.File.Name(), File: s.File, Directory: s.Directory})
	}
	defer f.sayWait()()
	f.devices, err = client.New(socket).Fork(context.WithoutCancel(f.ctx), f.device, stores...)
	var answered *client.ServerError
	f.unsure = err != nil && !errors.As(err, &answered) && !errors.Is(err, client.ErrNoServer)
	if f.unsure {
		err = hint.Add(err, "the device may use the new files; list --json shows its files")
	}
	return err
}

// sayWait says at an interrupt that the command waits. The returned function ends that.
func (f *forking) sayWait() (end func()) {
	said := make(chan struct{})
	stop := context.AfterFunc(f.ctx, func() {
		defer close(said)
		report.Warnings(f.app.errOut, "fork "+f.device.Device, []string{"interrupted while the server works on it; waits for its answer (interrupt again to give up)"})
	})
	return func() {
		if !stop() {
			<-said
		}
	}
}

// addOther starts a process for a device of the tables of the device, with the other store.
func (f *forking) addOther() error {
	forked, other := &f.devices[0], f.stores[1].File.Name()
	text, paths, err := loop.WithOtherStore(forked.Table, other)
	if err != nil {
		return err
	}
	j := &daemon.Job{Name: "fork of " + forked.Device, Standalone: true, Config: loop.Config{Table: text, OnCrash: loop.OnCrash(forked.OnCrash)}}
	defer j.Close()
	for i, path := range paths {
		file, err := loop.OpenTableDevice(path)
		if err != nil {
			return err
		}
		j.Files = append(j.Files, file)
		if path == other {
			continue
		}
		if err := forked.CheckPart(i, file); err != nil {
			return err
		}
	}
	added, err := f.app.addDevice(f.ctx, j, showLater)
	if err != nil {
		return err
	}
	f.devices = append(f.devices, *added)
	return nil
}

// removeUnused removes the new files that no device has after an error. They stay if the server
// may still work on the fork.
func (f *forking) removeUnused(drv driver) error {
	if f.unsure {
		return nil
	}
	devices, err := drv.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, store := range f.stores {
		used := false
		for i := range devices {
			is, err := devices[i].Uses(store.File)
			if err != nil {
				return err
			}
			used = used || is
		}
		if !used {
			errs = append(errs, store.Remove())
		}
	}
	return errors.Join(errs...)
}
