package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// transferOptions holds the flags of the transfer that loop.TransferConfig has no fields
// for.
type transferOptions struct {
	luks bool
	keys keyFlags
}

// These flags have no effect without another flag.
var (
	cipherFlags = []string{"iv-offset", "iv-large-sectors"}
	needKey     = []string{"allow-discards", "key-file", "key-fd", "key-description"}
)

func (o *transferOptions) addFlags(f *pflag.FlagSet, c *loop.TransferConfig) {
	f.Var(choiceFlag[string]{&c.Name, transfer.Names()}, "transfer", "transform applied between device and file")
	f.BoolVar(&o.luks, "luks", false, "open a LUKS volume: the header has the transfer and its key")
	o.keys.addFlags(f)
	f.Uint64Var(&c.IVOffset, "iv-offset", 0, "number of the first sector, in `SECTORS` of 512 bytes, for a part of a larger disk")
	f.BoolVar(&c.IVLargeSectors, "iv-large-sectors", false, "count sectors of --sector-size instead of 512 bytes")
	f.BoolVar(&c.AllowDiscards, "allow-discards", false, "pass discards to the file; they reveal which blocks are unused")
}

// check refuses flags that have no effect.
func (o *transferOptions) check(cmd *cobra.Command, c *loop.TransferConfig) error {
	if err := o.keys.check(cmd); err != nil {
		return err
	}
	isNone := c.Name == transfer.None || c.Name == ""
	switch {
	case o.luks && o.keys.given["transfer"]:
		return usage("--luks and --transfer", "the header defines the transfer")
	case o.luks:
		return o.needless(cipherFlags, "the header defines it")
	case o.keys.given["header"]:
		return usage("--header", "it needs --luks")
	case isNone:
		return o.needless(slices.Concat(needKey, cipherFlags), "it needs --transfer or --luks")
	case !o.keys.source.IsGiven():
		return usage("--transfer "+c.Name+": the key is missing", "give it with --key-file")
	case c.Name == transfer.XOR:
		return o.needless(cipherFlags, "xor does not count sectors")
	}
	return nil
}

// needless refuses the first given flag of the list.
func (o *transferOptions) needless(flags []string, why string) error {
	for _, name := range flags {
		if o.keys.given[name] {
			return usage("--"+name, why)
		}
	}
	return nil
}

func usage(what, why string) error {
	return report.Usage(fmt.Errorf("%s: %s", what, why), "see ublk-loop add --help")
}

// prepare reads the key, and for LUKS also the transfer's options. It returns a
// descriptor to read the key from, or nil without a key, and warnings. An interrupt ends it,
// and the terminal is as before then.
func (o *transferOptions) prepare(file *os.File, c *loop.Config) (*os.File, []string, error) {
	ctx, stop := interruptible(context.Background())
	defer stop()
	switch {
	case o.luks:
		return keysource.Pipe(ctx, func(ctx context.Context) (*transfer.Secret, []string, error) {
			return o.keys.source.Unlock(ctx, file, c)
		})
	case c.Transfer.Name == "" || c.Transfer.Name == transfer.None:
		return nil, nil, nil
	}
	return keysource.Pipe(ctx, o.keys.source.Key)
}
