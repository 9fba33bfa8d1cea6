package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ublk-loop/ublk-loop/internal/daemon"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/internal/verityfile"
)

// verityOptions are the flags of add for an image with a hash tree.
type verityOptions struct{ verityfile.Location }

// verityFlags are the flags that need --root-hash.
var verityFlags = []string{"hash-file", "hash-offset", "root-hash-signature"}

func (o *verityOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.RootHash, "root-hash", "", "serve an image with a hash tree of dm-verity, read-only; the root hash is `HEX|FILE`,\nor beside the image (auto)")
	f.StringVar(&o.Signature, "root-hash-signature", "", "attach only if `FILE`, or what is beside the image (auto), is a PKCS#7 signature\nof the root hash by a certificate in /etc/verity.d, /run/verity.d or\n/usr/lib/verity.d")
	f.StringVar(&o.HashFile, "hash-file", "", "superblock and tree are in `FILE` (default: behind the data in the image)")
	f.Var(optionalSizeFlag{&o.HashOffset}, "hash-offset", "offset of the superblock (default: the start of --hash-file, or the end of\nthe data)")
}

// check refuses flags that do not fit --root-hash, or that need it.
func (o *verityOptions) check(cmd *cobra.Command) error {
	if o.RootHash == "" {
		for _, name := range verityFlags {
			if cmd.Flags().Changed(name) {
				return report.Usage(errors.New("--"+name+": --root-hash is missing"), helpHint(cmd))
			}
		}
		return nil
	}
	for _, name := range append([]string{"table", "cow"}, noTableFlags...) {
		if cmd.Flags().Changed(name) {
			return usage("--"+name, "not with --root-hash")
		}
	}
	return nil
}

// verityJob opens an image and its tree. The device is that of a table with the target verity.
func (o *addOptions) verityJob() (*daemon.Job, error) {
	o.config.ReadOnly = true
	image, err := o.open()
	if err != nil {
		return nil, err
	}
	j := &daemon.Job{
		Name: image.Name(), JSON: o.json, Standalone: o.standalone, Autoclear: o.autoclear, Foreground: o.foreground,
		NotifySocket: os.Getenv("NOTIFY_SOCKET"), Config: o.config, Files: []*os.File{image},
	}
	device, err := verityfile.Open(image, &o.verity.Location)
	if err != nil {
		j.Close()
		return nil, report.Name(err, "attach", j.Name)
	}
	j.Files, j.Config.Table = device.Files, device.Table
	for _, file := range j.Files {
		j.Warnings = append(j.Warnings, o.lockWarnings(file)...)
	}
	return j, o.openLog(j)
}
