package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/transfer"
)

func newKeyCommand(a *app) *cobra.Command {
	var opts recoverOptions
	socket := client.DefaultSocket
	cmd := &cobra.Command{
		Use:   "key DEVICE|ID|FILE",
		Short: "Give a device of serve its key again, after a restart of serve",
		Long: "Give an encrypted device its key again. The device was added with --on-crash=reissue or requeue, " +
			"and serve was killed. The I/O of the device waits for the key.",
		Args: arguments(1, 1, "DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := opts.keys.check(cmd); err != nil {
				return err
			}
			return report.Name(a.runKey(cmd.Context(), client.New(socket), args[0], opts), "give the key to", args[0])
		},
	}
	opts.keys.addFlags(cmd.Flags())
	filledVar(cmd.Flags(), &socket, "socket", "`PATH` of the server's socket")
	return cmd
}

// runKey reads the key of a device, and gives it to the server.
func (a *app) runKey(ctx context.Context, server *client.Client, arg string, opts recoverOptions) error {
	drv, err := a.open()
	if err != nil {
		return err
	}
	defer func() { _ = drv.Close() }()
	device, err := oneDevice(drv, arg)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	j, err := recoverJob(ctx, device, opts)
	if err != nil {
		return err
	}
	defer j.Close()
	if j.Key == nil && device.Table == "" && (device.Transfer.Name == "" || device.Transfer.Name == transfer.None) {
		return fmt.Errorf("%s is not encrypted: %w", device.Device, unix.EINVAL)
	}
	if j.Key == nil {
		return hint.Add(fmt.Errorf("no key: %w", unix.EINVAL), "give it with {key}")
	}
	report.Warnings(a.errOut, device.Device, j.Warnings)
	return server.GiveKey(ctx, &device, j.Key)
}

// oneDevice returns the only device that an argument names.
func oneDevice(drv driver, arg string) (client.Device, error) {
	targets, err := targetsOf(drv, arg)
	if err != nil {
		return client.Device{}, err
	}
	switch len(targets) {
	case 0:
		return client.Device{}, fmt.Errorf("%s has no device: %w", arg, unix.ENODEV)
	case 1:
	default:
		return client.Device{}, fmt.Errorf("%s has %d devices, name one of them: %w", arg, len(targets), unix.EINVAL)
	}
	return drv.Device(targets[0].id)
}

// keyFlags names the place of a key. At most one place may be given.
type keyFlags struct {
	source keysource.Source
	given  map[string]bool // names of the given flags
}

// keySources lists the flags that name the source of a key.
var keySources = []struct {
	flag string
	kind keysource.Kind
}{
	{"key-file", keysource.File},
	{"key-fd", keysource.Descriptor},
	{"key-description", keysource.Keyring},
}

func (o *keyFlags) addFlags(f *pflag.FlagSet) {
	s := &o.source
	filledVar(f, &s.File, "key-file", "read the key, or the passphrase of a LUKS volume, from the whole of `FILE` (-: standard input)")
	f.Var(parsed(&s.FD, parseFD, "N"), "key-fd", "read the key from the open descriptor N, to its end")
	filledVar(f, &s.Description, "key-description", "take the key of type user with the description `TEXT` from the kernel's keyrings")
	f.Var(sizeFlag(&s.Offset), "keyfile-offset", "number of bytes before the key in its file or descriptor")
	f.Var(sizeFlag(&s.Size), "keyfile-size", "length of the key in its file or descriptor (default: all that follows)")
	filledVar(f, &s.Header, "header", "read the LUKS header from `FILE`, not from the volume")
	f.BoolVar(&s.Strict, "strict-key", false, "refuse a key file that other users can read, instead of a warning")
}

// check records which flags are given. It refuses a flag that has no effect, and more
// than one place.
func (o *keyFlags) check(cmd *cobra.Command) error {
	o.given = map[string]bool{}
	cmd.Flags().Visit(func(flag *pflag.Flag) { o.given[flag.Name] = true })
	var flags []string
	for _, p := range keySources {
		if o.given[p.flag] {
			flags = append(flags, p.flag)
			o.source.Kind = p.kind
		}
	}
	switch {
	case len(flags) > 1:
		return report.Usage(fmt.Errorf("--%s and --%s are mutually exclusive", flags[0], flags[1]), helpHint(cmd))
	case (o.given["keyfile-offset"] || o.given["keyfile-size"]) && !o.given["key-file"] && !o.given["key-fd"]:
		return report.Usage(errors.New("--keyfile-offset and --keyfile-size need --key-file or --key-fd"), helpHint(cmd))
	case o.source.Strict && (!o.given["key-file"] || o.source.File == "-"):
		return report.Usage(errors.New("--strict-key needs the path of a file with --key-file"), helpHint(cmd))
	}
	return nil
}
