"""The measurements of `tritloom measure`: a file a measurement, each with a function `add`."""
