module barkd

go 1.25
