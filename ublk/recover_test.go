package ublk_test

import (
	"errors"
	"math/bits"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

const (
	offersRecovery = offersAuto | uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE
	reissue        = uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE
)

// A recovered device keeps everything that it had.
func TestRecoverTakesTheDeviceAsItIs(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersRecovery}
	ctl := ublk.NewControl(fake)
	added, err := ctl.Add(ublk.Options{Mode: ublk.BufferRegister, Queues: 3, Depth: 7, Tag: 42, Features: reissue})
	if err != nil {
		t.Fatal(err)
	}
	id := added.Info().ID
	fake.Set(id, ublk.StateQuiesced, 4711)
	dev, err := ctl.Recover(id, ublk.RecoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := added.Info()
	want.State, want.ServerPID = ublk.StateQuiesced, 4711
	if dev.Info() != want || dev.Mode() != ublk.BufferRegister {
		t.Errorf("recovered %+v in mode %v, want %+v", dev.Info(), dev.Mode(), want)
	}
	for range 2 {
		if err := dev.Leave(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(fake.IDs()); n != 1 {
		t.Errorf("%d devices are left, want 1: who leaves a device does not delete it", n)
	}
}

func TestRecoverRefusesWhatDoesNotOutliveItsServer(t *testing.T) {
	for name, tt := range map[string]struct {
		features ublk.Features
		state    ublk.State
	}{
		"added without":      {0, ublk.StateDead},
		"served by somebody": {0, ublk.StateLive},
		"without a disk":     {reissue, ublk.StateDead},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &ublktest.Fake{Offers: offersRecovery}
			ctl, id := described(t, fake, tt.features)
			fake.Set(id, tt.state, 1)
			if _, err := ctl.Recover(id, ublk.RecoverOptions{}); !errors.Is(err, ublk.ErrNotRecoverable) {
				t.Errorf("error %v, want ErrNotRecoverable", err)
			}
			if n := sent(fake, uapi.UBLK_U_CMD_START_USER_RECOVERY); n != 0 {
				t.Errorf("%d commands were sent", n)
			}
		})
	}
	ctl := ublk.NewControl(&ublktest.Fake{Offers: offersRecovery})
	if _, err := ctl.Recover(3, ublk.RecoverOptions{}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("without a device: error %v, want ENODEV", err)
	}
}

// The driver takes some time to notice that a server has ended.
func TestRecoverWaitsForTheDriver(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersRecovery}
	ctl, id := described(t, fake, reissue)
	fake.Set(id, ublk.StateLive, 1)
	recovered := make(chan error)
	go func() { // ends when the device is quiesced; its error is received below
		_, err := ctl.Recover(id, ublk.RecoverOptions{})
		recovered <- err
	}()
	for sent(fake, uapi.UBLK_U_CMD_START_USER_RECOVERY) < 3 {
		select {
		case err := <-recovered:
			t.Fatalf("it does not wait: error %v", err)
		default:
		}
	}
	fake.Set(id, ublk.StateQuiesced, 1)
	if err := <-recovered; err != nil {
		t.Fatal(err)
	}
}

// The pauses between checks grow.
func TestAwaitServerEndPauses(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersRecovery}
	ctl, id := described(t, fake, reissue)
	fake.Set(id, ublk.StateLive, 1)
	asked := sent(fake, uapi.UBLK_U_CMD_GET_DEV_INFO)
	started := time.Now()
	end := time.AfterFunc(200*time.Millisecond, func() { fake.Set(id, ublk.StateQuiesced, 1) })
	defer end.Stop()
	if err := ctl.AwaitServerEnd(id); err != nil {
		t.Fatal(err)
	}
	// The pauses are of 1 ms, 2 ms, 4 ms … 100 ms.
	took := int(time.Since(started).Milliseconds())
	if n, most := sent(fake, uapi.UBLK_U_CMD_GET_DEV_INFO)-asked, bits.Len(uint(took))+took/100+2; n > most {
		t.Errorf("the driver was asked %d times in %d ms, want %d at most", n, took, most)
	}
}

func TestAwaitServerEnd(t *testing.T) {
	fake := &ublktest.Fake{Offers: offersRecovery}
	ctl, id := described(t, fake, reissue)
	fake.Set(id, ublk.StateLive, 1)
	waited := make(chan error)
	go func() { waited <- ctl.AwaitServerEnd(id) }() // received below
	for sent(fake, uapi.UBLK_U_CMD_GET_DEV_INFO) < 3 {
		select {
		case err := <-waited:
			t.Fatalf("it does not wait: error %v", err)
		default:
		}
	}
	fake.Set(id, ublk.StateQuiesced, 1)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := ctl.AwaitServerEnd(id + 1); !errors.Is(err, unix.ENODEV) {
		t.Errorf("without a device: error %v, want ENODEV", err)
	}
}
