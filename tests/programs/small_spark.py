"""A small Spark application: counts, says what it got, and reports it."""

import json
import os
import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
if "fail" in sys.argv:
    raise SystemExit("asked to fail")
count = spark.range(int(sys.argv[1])).repartition(4).count()
with open(os.environ["PENSTOCK_RESULT"], "w") as file:
    json.dump({"count": count, "args": sys.argv[1:], "conf": spark.conf.get("spark.my.conf")}, file)
spark.stop()
