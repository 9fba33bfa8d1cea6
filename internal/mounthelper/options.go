package mounthelper

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ublk-loop/ublk-loop/internal/bytesize"
	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/keysource"
	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer"
)

// prefix begins the options of the device. mount(8) acts on some shorter names itself, and
// would not pass them on (optmap.c in libmount).
const prefix = "ublk."

// splitOptions splits a list of options at its commas. As in libmount, a comma between double quotes is part of a value.
func splitOptions(list string) (options []string) {
	start, quoted := 0, false
	for i := range len(list) {
		switch {
		case list[i] == '"':
			quoted = !quoted
		case list[i] == ',' && !quoted:
			options, start = append(options, list[start:i]), i+1
		}
	}
	return append(options, list[start:])
}

// unquote removes the double quotes that libmount has around a value with a comma.
func unquote(value string) string {
	if inner, ok := strings.CutPrefix(value, `"`); ok {
		if inner, ok := strings.CutSuffix(inner, `"`); ok {
			return inner
		}
	}
	return value
}

// takeOption keeps an option of the device, and passes any other on to mount(8).
func (r *request) takeOption(option string) error {
	name, value, hasValue := strings.Cut(option, "=")
	if own, isOwn := strings.CutPrefix(name, prefix); isOwn {
		take := ownOptions[own]
		switch {
		case take == nil:
			return hint.Add(errors.New("unknown"), "the options of the device are %s", strings.Join(names(), ", "))
		case !hasValue && !slices.Contains(switches, own):
			return errors.New("its value is missing")
		case hasValue && slices.Contains(switches, own):
			return errors.New("it has no value")
		}
		return take(r, unquote(value))
	}
	switch name {
	case "offset", "sizelimit":
		return fmt.Errorf("use %s%s", prefix, name)
	case "loop":
		return errors.New("leave it out: the image gets a device of ublk-loop")
	case "ro":
		r.config.ReadOnly = true
	case "remount":
		r.remount = true
	case "nofail":
		r.nofail = true
	}
	if option != "" {
		r.options = append(r.options, option)
	}
	return nil
}

// names returns the options of the device, sorted.
func names() []string {
	var all []string
	for name := range ownOptions {
		all = append(all, prefix+name)
	}
	slices.Sort(all)
	return all
}

// switches are the options without a value.
var switches = []string{"luks", "shared", "partscan", "allow-discards"}

// ownOptions take the options of the device, by name without the prefix. They are the flags
// of ublk-loop add.
var ownOptions = map[string]func(r *request, value string) error{
	"offset":         func(r *request, v string) error { return parseSize(v, &r.config.Offset) },
	"sizelimit":      func(r *request, v string) error { return parseSize(v, &r.config.SizeLimit) },
	"sector-size":    func(r *request, v string) error { return r.parseSector(v) },
	"direct-io":      func(r *request, v string) error { return parseSwitch(v, &r.config.DirectIO) },
	"zero-copy":      func(r *request, v string) error { return parseSwitch(v, &r.config.ZeroCopy) },
	"shared":         func(r *request, _ string) error { r.config.Shared = true; return nil },
	"partscan":       func(r *request, _ string) error { r.config.PartScan = true; return nil },
	"ref":            func(r *request, v string) error { r.config.Ref = v; return nil },
	"fstype":         func(r *request, v string) error { r.fsType = v; return nil },
	"luks":           func(r *request, _ string) error { r.luks = true; return nil },
	"transfer":       func(r *request, v string) error { return r.parseTransfer(v) },
	"iv-offset":      func(r *request, v string) error { return r.parseIVOffset(v) },
	"allow-discards": func(r *request, _ string) error { r.config.Transfer.AllowDiscards = true; return nil },
	"key-file":       func(r *request, v string) error { return r.takeKey(keysource.Source{Kind: keysource.File, File: v}) },
	"keyfile-offset": func(r *request, v string) error { return parseSize(v, &r.key.Offset) },
	"keyfile-size":   func(r *request, v string) error { return parseSize(v, &r.key.Size) },
	"header":         func(r *request, v string) error { r.key.Header = v; return nil },
	"key-description": func(r *request, v string) error {
		return r.takeKey(keysource.Source{Kind: keysource.Keyring, Description: v})
	},
}

func parseSize(text string, size *uint64) (err error) {
	*size, err = bytesize.Parse(text)
	return err
}

func (r *request) parseSector(text string) error {
	size, err := bytesize.Parse(text)
	if err == nil && !slices.Contains([]uint64{512, 1024, 2048, 4096}, size) {
		err = errors.New("not 512, 1024, 2048 or 4096")
	}
	r.config.SectorSize = uint32(min(size, math.MaxUint32))
	return err
}

func parseSwitch(text string, s *loop.Switch) error {
	*s = loop.Switch(text)
	if !slices.Contains([]loop.Switch{loop.SwitchAuto, loop.SwitchOn, loop.SwitchOff}, *s) {
		return errors.New("not auto, on or off")
	}
	return nil
}

func (r *request) parseTransfer(text string) error {
	if !slices.Contains(transfer.Names(), text) || text == transfer.None {
		return errors.New("no such transfer")
	}
	r.config.Transfer.Name = text
	return nil
}

func (r *request) parseIVOffset(text string) (err error) {
	r.config.Transfer.IVOffset, err = strconv.ParseUint(text, 10, 64)
	return err
}

// takeKey takes the place of a key. A key in a descriptor or on standard input cannot be in
// fstab.
func (r *request) takeKey(s keysource.Source) error {
	if r.key.IsGiven() {
		return errors.New("there is another key")
	}
	if s.File == "-" {
		return errors.New("not the path of a file")
	}
	r.key.Kind, r.key.File, r.key.Description = s.Kind, s.File, s.Description
	return nil
}
