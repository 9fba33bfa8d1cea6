package table

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ublk-loop/ublk-loop/transfer"
)

// sectorSize is the unit of all numbers in a table, in bytes.
const sectorSize = 1 << transfer.SectorShift

// Crypt encrypts a part of a device.
type Crypt struct {
	Cipher string // one of package transfer's
	Key    Key
	// IVOffset is added to the number of a sector in the line, in units of
	// 512 bytes.
	IVOffset uint64
	Location
	AllowDiscards  bool
	SectorSize     uint32 // in bytes
	IVLargeSectors bool
	// Threads has the options that choose threads of the kernel. They have no
	// effect, but are printed.
	Threads ThreadOptions
}

// ThreadOptions are a set of options of dm-crypt.
type ThreadOptions uint8

// Options of dm-crypt, in the order in which it prints them.
const (
	SameCPUCrypt ThreadOptions = 1 << iota
	HighPriority
	SubmitFromCryptCPUs
	NoReadWorkqueue
	NoWriteWorkqueue
)

var threadOptions = []string{
	"same_cpu_crypt", "high_priority", "submit_from_crypt_cpus", "no_read_workqueue", "no_write_workqueue",
}

// maxCryptOptions is the largest number of options (crypt_ctr_optional in
// drivers/md/dm-crypt.c).
const maxCryptOptions = 9

var _ Target = (*Crypt)(nil)

func parseCrypt(w *words) (Target, error) {
	if err := w.atLeast(5); err != nil {
		return nil, err
	}
	t := &Crypt{Cipher: w.next(), SectorSize: sectorSize}
	if t.Cipher != transfer.AESXTSPlain64 && t.Cipher != transfer.AESXTSPlain {
		return nil, badArgument("cipher", t.Cipher, ErrUnsupported)
	}
	if err := t.Key.parse(w.nextSecret(), w.opts); err != nil {
		return nil, err
	}
	if err := t.parseRest(w); err != nil {
		t.Key.Close()
		return nil, err
	}
	return t, nil
}

// parseRest reads the arguments after the key.
func (t *Crypt) parseRest(w *words) (err error) {
	if t.IVOffset, err = w.number("iv offset", 64); err != nil {
		return err
	}
	if t.Location, err = w.location(); err != nil || len(w.rest) == 0 {
		return err
	}
	count, err := w.number("number of options", 32)
	if err != nil {
		return err
	}
	if count > maxCryptOptions {
		return fmt.Errorf("%d options, more than %d: %w", count, maxCryptOptions, ErrInvalid)
	}
	if err := w.exactly(int(count)); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	sizes := 0
	for len(w.rest) > 0 {
		s := w.next()
		err := t.option(s)
		if strings.HasPrefix(s, sizeOption) {
			sizes++
		}
		if err == nil && sizes > 1 {
			// The kernel uses the last one, but checks all.
			err = fmt.Errorf("given twice: %w", ErrInvalid)
		}
		if err != nil {
			return badArgument("option", s, err)
		}
	}
	return nil
}

const sizeOption = "sector_size:"

// option reads one option. Capital letters count as small ones where they do
// in the kernel.
func (t *Crypt) option(s string) error {
	if value, found := strings.CutPrefix(s, sizeOption); found {
		size, err := parseNumber(value, 32)
		t.SectorSize = uint32(size)
		return err
	}
	for i, name := range threadOptions {
		if strings.EqualFold(s, name) {
			t.Threads |= 1 << i
			return nil
		}
	}
	name, _, _ := strings.Cut(s, ":")
	switch {
	case strings.EqualFold(s, "allow_discards"):
		t.AllowDiscards = true
	case strings.EqualFold(s, "iv_large_sectors"):
		t.IVLargeSectors = true
	case name == "integrity" || name == "integrity_key_size":
		return ErrUnsupported
	default:
		return fmt.Errorf("unknown: %w", ErrInvalid)
	}
	return nil
}

// Type implements Target.
func (*Crypt) Type() string { return "crypt" }

// Areas implements Target.
func (t *Crypt) Areas(length uint64) []Area { return []Area{t.area(length)} }

func (t *Crypt) arguments(b []byte) []byte {
	b = append(b, t.Cipher...)
	b = append(b, ' ')
	b = t.Key.append(b)
	b = append(b, ' ')
	b = strconv.AppendUint(b, t.IVOffset, 10)
	b = append(b, ' ')
	b = t.Location.arguments(b)
	if options := t.options(); len(options) > 0 {
		b = fmt.Appendf(b, " %d %s", len(options), strings.Join(options, " "))
	}
	return b
}

// options returns the options in the order of crypt_status in
// drivers/md/dm-crypt.c.
func (t *Crypt) options() (options []string) {
	if t.AllowDiscards {
		options = append(options, "allow_discards")
	}
	for i, name := range threadOptions {
		if t.Threads&(1<<i) != 0 {
			options = append(options, name)
		}
	}
	if t.SectorSize != sectorSize {
		options = append(options, fmt.Sprintf("sector_size:%d", t.SectorSize))
	}
	if t.IVLargeSectors {
		options = append(options, "iv_large_sectors")
	}
	return options
}

func (t *Crypt) check(length uint64) error {
	switch t.SectorSize {
	case 512, 1024, 2048, 4096:
	default:
		return fmt.Errorf("sectors of %d bytes, not 512, 1024, 2048 or 4096: %w", t.SectorSize, ErrInvalid)
	}
	unit := uint64(t.SectorSize / sectorSize)
	if t.IVOffset%unit != 0 {
		return fmt.Errorf("iv offset %d: not a multiple of %d, a sector of %d bytes: %w", t.IVOffset, unit, t.SectorSize, ErrInvalid)
	}
	if length%unit != 0 {
		return fmt.Errorf("length %d: not a multiple of %d, a sector of %d bytes: %w", length, unit, t.SectorSize, ErrInvalid)
	}
	return nil
}

func (t *Crypt) block() uint32 { return t.SectorSize }
