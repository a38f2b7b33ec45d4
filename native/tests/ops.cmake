# The CPU backend, sampling, memory and devices.
bark_test(linear_test)
bark_test(attention_test)
bark_test(rowwise_test)
bark_test(conv_test)
bark_test(parallel_test)
bark_test(sampling_test)
bark_test(memory_test)
bark_test(device_test)
