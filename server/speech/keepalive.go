package speech

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"barkd/cgo/cache"
)

// ParseKeepAlive reads how long a model stays in memory when nobody uses it: seconds ("300"), or a duration ("5m");
// negative is for ever and 0 at once.
func ParseKeepAlive(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	d, err := time.ParseDuration(text)
	if s, numErr := strconv.ParseFloat(text, 64); numErr == nil && !math.IsNaN(s) {
		if s = s * float64(time.Second); s > math.MaxInt64/2 {
			return 0, fmt.Errorf("%q is too long", text)
		}
		d, err = time.Duration(max(s, -1)), nil
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is neither seconds nor a duration such as 5m", text)
	case d < 0:
		return cache.Forever, nil
	case d == 0:
		return cache.AtOnce, nil
	}
	return d, nil
}
