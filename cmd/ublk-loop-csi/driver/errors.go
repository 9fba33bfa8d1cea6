package driver

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
)

// failure gives an error the code of CSI for its cause. It keeps the code of an error that
// has one.
func failure(err error) error {
	if err == nil {
		return nil
	}
	var coded interface {
		error
		GRPCStatus() *status.Status
	}
	if errors.As(err, &coded) && coded.Error() == err.Error() {
		return coded
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codeOf(err), err.Error())
}

func codeOf(err error) codes.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return codes.ResourceExhausted
	case errors.Is(err, unix.EFBIG):
		return codes.OutOfRange
	case errors.Is(err, client.ErrNoServer), errors.Is(err, client.ErrLost), errors.Is(err, errSilent):
		return codes.Unavailable
	case errors.Is(err, unix.EBUSY):
		return codes.FailedPrecondition
	}
	return codes.Internal
}

// unsettled returns the error of a call that may have left something behind. Kubernetes undoes the call after
// some codes only: after others it takes the call for ended, and neither repeats nor undoes it (isFinalError in
// pkg/volume/csi/csi_client.go).
func unsettled(err error) error {
	err = failure(err)
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return err
	}
	return status.Error(codes.Unavailable, status.Convert(err).Message())
}

// inField returns the error of an object that does not exist with the name of the field that the object is named in.
func inField(err error, field string) error {
	if status.Code(err) != codes.NotFound {
		return err
	}
	_, text, _ := strings.Cut(status.Convert(err).Message(), ": ")
	return status.Error(codes.NotFound, field+": "+text)
}

func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}
