package oci

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
)

// A Disk says what the device of an image is made of, besides the image. The zero value
// stands for the bytes of the image.
type Disk struct {
	ReadOnly   bool
	encryption encryption
	verified   verified
	cow        cow
}

// DiskNames are the names of the settings that Set takes.
var DiskNames = func() (names []string) {
	for _, s := range (&Disk{}).settings() {
		names = append(names, s.name)
	}
	return names
}()

// settings returns the settings in the order in which they are parsed, with their defaults.
func (d *Disk) settings() []annotation {
	return append([]annotation{
		{"encrypt", "none", d.parseEncryption},
		{"cow", "none", d.parseCow},
	}, d.verified.settings()...)
}

// Set parses the values of settings by their names, after ReadOnly is set. Settings without a
// value get their defaults. Set returns an error that wraps EINVAL for an invalid value, and for
// values that contradict each other, with the name of a setting.
func (d *Disk) Set(values map[string]string) (name string, err error) {
	for _, s := range d.settings() {
		value, given := values[s.name]
		if !given {
			value = s.value
		}
		if err := s.parse(value); err != nil {
			return s.name, fmt.Errorf("%q: %w", value, err)
		}
	}
	return d.check()
}

// check returns an error that wraps EINVAL for settings that contradict each other, with the name
// of one of them.
func (d *Disk) check() (name string, err error) {
	switch {
	case d.verified.isGiven() && !d.ReadOnly && d.cow.kind == "":
		return rootSetting, fmt.Errorf("an image that is checked cannot be written to without cow: %w", unix.EINVAL)
	case d.encryption.kind == ephemeral && d.cow.kind != cowTransient:
		return "encrypt", fmt.Errorf("ephemeral: only changes that end with the container can have such a key (cow=transient): %w", unix.EINVAL)
	}
	return "", nil
}

// A DiskRequest is what a server needs for the device of a Disk.
type DiskRequest struct {
	Add    client.AddRequest
	Files  client.Files
	opened []*os.File
}

// Close closes all files but the image.
func (r *DiskRequest) Close() {
	for _, f := range r.opened {
		_ = f.Close()
	}
}

// Request returns the request for the device of an image that OpenImage has opened. It
// returns an error if the settings do not allow the device, or if the root hash of the image
// or its signature is wrong.
func (s *Settings) Request(image *os.File, d *Disk, who Requester) (*DiskRequest, error) {
	if err := s.demandVerity(image, &d.verified, who); err != nil {
		return nil, err
	}
	r := &DiskRequest{}
	err := s.fill(r, image, d, who)
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (s *Settings) fill(r *DiskRequest, image *os.File, d *Disk, who Requester) error {
	key, err := s.openKey(d.encryption, who)
	if err != nil {
		return err
	}
	if key != nil {
		r.opened, r.Files.Key = append(r.opened, key), key
	}
	r.Add.Config.ReadOnly = d.ReadOnly
	if !d.verified.isGiven() && d.cow.kind == "" {
		r.Add.File, r.Files.File = image.Name(), image
		r.Add.Config.Transfer = d.encryption.Transfer()
		return nil
	}
	l := &layers{request: r}
	if err := l.start(image); err != nil {
		return err
	}
	if d.verified.isGiven() {
		if err := l.verity(s, image, d, who); err != nil {
			return err
		}
	}
	if d.cow.kind != "" {
		if err := l.snapshot(s, image, d); err != nil {
			return err
		}
	}
	if key != nil {
		if err := l.crypt(key, d); err != nil {
			return err
		}
	}
	r.Add.Table = l.text()
	return nil
}

// layers are the tables of a device, from the lowest to the highest.
type layers struct {
	request *DiskRequest
	tables  []string // in the concise format
	top     string   // the device that the next table is above
	sectors uint64   // of top
}

// start begins with the image alone.
func (l *layers) start(image *os.File) error {
	info, err := image.Stat()
	if err != nil {
		return err
	}
	l.top, l.sectors = table.FileWord(image.Name(), "image"), uint64(info.Size())/tableSector
	l.request.Files.Table = []*os.File{image}
	return nil
}

// add puts a table on top of the others.
func (l *layers) add(name string, readOnly bool, line string) {
	mode := "rw"
	if readOnly {
		mode = "ro"
	}
	l.tables = append(l.tables, name+",,,"+mode+","+table.Escape(strings.TrimSpace(line)))
	l.top = "/dev/mapper/" + name
}

func (l *layers) text() string { return strings.Join(l.tables, ";") }

// verity adds the check of the image.
func (l *layers) verity(s *Settings, image *os.File, d *Disk, who Requester) error {
	device, err := s.openVerity(image, &d.verified, who)
	if err != nil {
		return fmt.Errorf("verity: %w", err)
	}
	l.request.Files.Table = device.Files
	l.request.opened = append(l.request.opened, device.Files[1:]...)
	l.sectors = device.Bytes / tableSector
	l.tables, l.top = append(l.tables, device.Concise("verified")), "/dev/mapper/verified"
	return nil
}

// snapshot adds a store for changes.
func (l *layers) snapshot(s *Settings, image *os.File, d *Disk) error {
	store, err := s.openStore(d.cow, image, int64(l.sectors)*tableSector)
	if err != nil {
		return err
	}
	l.request.opened = append(l.request.opened, store)
	origin, place, format := l.top, table.FileWord(store.Name(), "store"), "P"
	if d.cow.kind == cowTransient {
		// Its index is only in the server's memory.
		format, l.request.Add.Config.OnCrash = "N", "fail"
	}
	files := &l.request.Files.Table
	if d.encryption.kind == ephemeral && len(l.tables) == 0 {
		*files = append([]*os.File{store}, *files...) // the text names the store first
	} else {
		*files = append(*files, store)
	}
	if d.encryption.kind == ephemeral {
		if place, err = l.secret(store, place); err != nil {
			return err
		}
	}
	l.add("changes", false, fmt.Sprintf("0 %d snapshot %s %s %s %d", l.sectors, origin, place, format, cowChunk/tableSector))
	return nil
}

// secret adds the encryption of a store with a random key, and returns its name.
func (l *layers) secret(store *os.File, place string) (string, error) {
	info, err := store.Stat()
	if err != nil {
		return "", err
	}
	l.request.Add.RandomKeys = true
	l.add("secret", false, fmt.Sprintf("0 %d crypt %s :64:user:ephemeral 0 %s 0", info.Size()/tableSector, transfer.AESXTSPlain64, place))
	return l.top, nil
}

// crypt adds the encryption. What is below has the encrypted bytes: the image, and the store.
func (l *layers) crypt(key *os.File, d *Disk) error {
	bytes, err := unix.IoctlGetInt(int(key.Fd()), unix.TIOCINQ)
	if err != nil {
		return fmt.Errorf("size of the key: %w", err)
	}
	if bytes != 32 && bytes != 64 {
		return fmt.Errorf("a key of %d bytes, not 32 or 64: %w", bytes, unix.EINVAL)
	}
	l.add("clear", d.ReadOnly, fmt.Sprintf("0 %d crypt %s :%d:user:container 0 %s 0", l.sectors, d.encryption.Transfer().Name, bytes, l.top))
	return nil
}
