package loop

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/internal/identity"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/filelock"
	"github.com/ublk-loop/ublk-loop/loop/internal/stack"
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile"
	"github.com/ublk-loop/ublk-loop/ublk"
)

// WaitsForServer reports whether device cfg.ID waits for a server (OnCrash) and was attached with
// the same file or tables, and configuration. Recover then does what Attach cannot. It is for a
// service that is started again.
//
// It returns false if Attach has an answer of its own: the device does not exist, is
// served, belongs to another program, or cannot be recovered. It returns an error that
// wraps EEXIST if the device waits but has another file or configuration, and ESTALE if
// another file or disk has the path that the device's had.
func WaitsForServer(ctl *ublk.Control, file *os.File, cfg *Config) (bool, error) {
	if features, err := cfg.OnCrash.features(); cfg.ID == nil || err != nil || features == 0 {
		return false, nil
	}
	saved, err := recoverable(ctl, *cfg.ID, &RecoverOptions{})
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, ErrServed), errors.Is(err, ErrForeign), errors.Is(err, ublk.ErrNotRecoverable):
		return false, nil
	case err != nil:
		return false, err
	}
	same := saved.isConfig(cfg)
	if cfg.Table == "" && same { // RecoverTable checks the files of tables
		found, err := identity.Of(file)
		if err != nil {
			return false, err
		}
		same = found.Is(saved.file()) || found.HasNumbersOf(saved.file())
		if !same && file.Name() == saved.Status.File { // a partition that is made again may have another number
			return false, fmt.Errorf("%s waits for a server: %w", ublk.BlockPath(*cfg.ID), checkIdentity(found, saved.file(), file.Name()))
		}
	}
	if !same {
		err := fmt.Errorf("%s waits for a server, and has another file or configuration: %w", ublk.BlockPath(*cfg.ID), unix.EEXIST)
		return false, hint.Add(err, "repeat the add that made it, or remove it with del")
	}
	return true, nil
}

// isConfig reports whether the device was made with a configuration. It ignores the
// fields that Attach sets, and the key, which is checked later.
func (s *state) isConfig(cfg *Config) bool {
	was, is := s.Config, *cfg
	for _, c := range []*Config{&was, &is} {
		c.ID, c.Key, c.Transfer.KeyBytes = nil, nil, 0
	}
	return was == is
}

// place is a part of a file or disk that a device uses.
type place struct {
	path   string
	object identity.File
	part   filelock.Range
	writes bool
}

// conflicts reports whether two devices cannot use these parts at the same time.
func (p *place) conflicts(other *place) bool {
	return (p.writes || other.writes) && filelock.Overlap(p.object, p.part, other.object, other.part)
}

// lockedPlaces returns the parts of opened files and disks that a new device has locked.
func lockedPlaces(part filelock.Range, opened ...*backing.Backing) (places []place) {
	for _, b := range opened {
		if b.Lock != nil {
			places = append(places, place{b.Path, b.Identity, part, !b.ReadOnly})
		}
	}
	return places
}

// writtenPlaces returns a file or disk that has been locked for writing.
func writtenPlaces(b *backing.Backing) (places []place) {
	if b.Lock != nil {
		places = append(places, place{b.Path, b.Identity, filelock.Range{}, true})
	}
	return places
}

// checkWaiting returns an error that wraps EBUSY if a device that waits for its next server has
// one of some places. Such a device has no lock, but will write the data of its requests, and
// expects its file as it was. The caller has locked the places, so that no recovery begins.
//
// serves reports whether this process serves a device, which then does not wait. The driver takes
// some time for each device that is asked for, and a server may have a thousand.
func checkWaiting(ctl *ublk.Control, serves func(id uint32) bool, places []place) error {
	if len(places) == 0 {
		return nil
	}
	infos, err := ctl.ListExcept(serves)
	if err != nil {
		return err
	}
	for i := range infos {
		waiting, err := waitingPlaces(ctl, &infos[i])
		if err != nil {
			return err
		}
		for _, p := range places {
			if slices.ContainsFunc(waiting, func(w place) bool { return w.conflicts(&p) }) {
				path := ublk.BlockPath(infos[i].ID)
				err := fmt.Errorf("open %s: %s has it and waits for a server: %w", p.path, path, unix.EBUSY)
				return hint.Add(err, "ublk-loop recover %s starts its server, ublk-loop del %s removes it", path, path)
			}
		}
	}
	return nil
}

// CheckFree returns an error that wraps EBUSY if a device that waits for its next server has the
// file of OpenPath in a way that another use excludes: it writes to the file, or the other use
// does. It is for programs that use files without a device.
func CheckFree(ctl *ublk.Control, file *os.File, readOnly bool) error {
	object, err := identity.Of(file)
	if err != nil {
		return err
	}
	return checkWaiting(ctl, servesNone, []place{{file.Name(), object, filelock.Range{}, !readOnly}})
}

// Claim keeps servers away from an open file or disk, as a device would, while a program without a
// device uses it. It returns an error that wraps EBUSY if a server has it in a way that excludes
// this use, and EPERM if the program is to write and stores need the file. CheckFree is for
// devices without a server; call it when Claim has returned. release ends the claim.
//
// Only root can see the locks of servers. For other users Claim only looks for stores.
func Claim(file *os.File, readOnly bool) (release func() error, err error) {
	return backing.Claim(statefile.LockDir, file, readOnly)
}

// servesNone is for a process that serves no device.
func servesNone(uint32) bool { return false }

// serves reports whether the server serves a device. It returns false for a device that has ended, whose
// lock may be released.
func (s *Server) serves(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[id]
	return d != nil && !d.dev.isDone()
}

// waitingPlaces returns the places of a device that waits for its next server, which will lock
// them. It returns none for other devices.
func waitingPlaces(ctl *ublk.Control, info *ublk.Info) ([]place, error) {
	if !isOurs(info) || !info.Features.Recoverable() || info.State == ublk.StateDead || info.State == ublk.StateLive && isRunning(int(info.ServerPID)) {
		return nil, nil
	}
	saved, err := readState(info.ID)
	if err != nil || saved == nil || saved.Config.Shared || info.State == ublk.StateLive && saved.isServed() {
		return nil, err
	}
	params, err := ctl.Params(info.ID)
	if err != nil {
		return nil, ignoreGone(err)
	}
	if saved.Config.Table != "" {
		return saved.tablePlaces()
	}
	if saved.Status.FileIsDisk && saved.Status.ReadOnly {
		return nil, nil
	}
	return []place{{saved.Status.File, saved.file(), saved.lockRange(params.Size), !saved.Status.ReadOnly}}, nil
}

// isRunning reports whether a process with a pid exists, including a zombie. It costs less than
// process.Exists.
func isRunning(pid int) bool { return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// tablePlaces returns the places of a device of tables.
func (s *state) tablePlaces() (places []place, err error) {
	tables, err := stack.Parse([]byte(s.Config.Table), false)
	if err != nil {
		return nil, err
	}
	defer tables.Close()
	written, locked := stack.Written(tables, s.Config.ReadOnly), stack.Locked(tables, s.Config.ReadOnly)
	for i, f := range s.Files {
		if i < len(written) && (locked[i] || !f.Object.IsDisk) {
			places = append(places, place{f.Path, f.Object, filelock.Range{}, written[i]})
		}
	}
	return places, nil
}

// Waiting returns the devices that a Server has to take over by itself: those that have
// lost a server of many devices. It must be called before this process serves a device.
// If the state names this process, the server was a program that has executed this one.
func Waiting(ctl *ublk.Control) ([]Status, error) {
	list, err := List(ctl)
	if err != nil {
		return nil, err
	}
	var waiting []Status
	for _, s := range list {
		if s.State != ublk.StateQuiesced.String() && s.PID != os.Getpid() {
			continue
		}
		if saved, err := readState(s.ID); err == nil && saved != nil && saved.ManyDevices {
			waiting = append(waiting, s)
		}
	}
	return waiting, nil
}
