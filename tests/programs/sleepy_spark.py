"""A Spark application that never ends: both its tasks sleep in Python workers."""

import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
spark.sparkContext.parallelize(range(2), 2).foreach(lambda _: time.sleep(900))
